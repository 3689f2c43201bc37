"""Task workers that are replaced between tasks: they have run enough, or have grown too large."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import recycled_app
import task_app
from serving import is_running
from workers import Gate, open_workers, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("form")

APP = "recycled_app:App"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the workers note their lives."""
    monkeypatch.setenv(recycled_app.HERE, str(tmp_path))
    return tmp_path


def noted(here: Path, name: str) -> list[str]:
    file = here / name
    return file.read_text().splitlines() if file.exists() else []


async def test_recycling_loses_nothing_and_runs_nothing_twice(here: Path) -> None:
    """C4: 4,000 tasks on 4 workers that live for 200 each: as many runs, and completions."""
    async with open_workers(4, APP, task_max_request=200, max_queued_tasks=4000) as workers:
        for number in range(4000):
            await workers.post(recycled_app.run, number)
        await workers.pool.wait_idle()
        statistics = workers.pool.statistics()

    runs = noted(here, "runs")
    assert len(runs) == 4000
    assert set(map(int, runs)) == set(range(4000))
    assert len(workers.finished) == 4000
    assert {completion.error for completion in workers.finished} == {None}
    assert {completion.attempt for completion in workers.finished} == {1}
    assert len({completion.result for completion in workers.finished}) >= 16
    assert statistics.completed == 4000
    assert sum(worker.tasks_done for worker in statistics.workers) == 4000


async def test_not_all_workers_leave_after_the_same_number_of_tasks(here: Path) -> None:
    """Up to a quarter earlier than task_max_request, and never later."""
    async with open_workers(4, APP, task_max_request=40, max_queued_tasks=4000) as workers:
        for number in range(600):
            await workers.post(recycled_app.run, number)
        await workers.pool.wait_idle()
        living = set(workers.pids)

    lives = Counter(completion.result for completion in workers.finished)
    left = [count for pid, count in lives.items() if pid not in living]
    assert max(lives.values()) <= 40
    assert min(left) >= 30
    # Of eleven numbers each of the many draws one.
    assert len(set(left)) > 1


async def test_a_worker_that_has_grown_too_large_is_replaced(here: Path) -> None:
    """After the task, not in it; what it had in hand and not begun runs in its successor."""
    limit = 150 * 2**20
    async with open_workers(1, APP, task_max_memory=limit) as workers:
        small = await workers.run(recycled_app.keep, 2**20)
        assert await workers.run(recycled_app.run, -1) == small
        await workers.post(recycled_app.keep, 200 * 2**20)
        for number in range(50):
            await workers.post(recycled_app.run, number)
        await workers.pool.wait_idle()
        (after,) = workers.pids

    large, *others = workers.finished
    assert large.result == small
    pids = [completion.result for completion in others]
    # It begins what it has in hand until somebody has seen how large it is.
    begun = pids.count(small)
    assert begun < 50
    assert pids == [small] * begun + [after] * (50 - begun)
    assert after != small
    assert sorted(map(int, noted(here, "runs"))) == [-1, *range(50)]


async def test_a_recycled_worker_stops_as_at_the_end(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """on_task_worker_stop is called once in every process; that is news, and no warning."""
    caplog.set_level(logging.INFO, "trioserver.tasks")
    async with open_workers(1, APP, task_max_request=1) as workers:
        pids = [await workers.run(task_app.pid) for _ in range(3)]
        await until(lambda: len(noted(here, "started")) == 4, "the last one is replaced")
        await workers.until_whole(*pids)
        (last,) = workers.pids

    assert len(set(pids)) == 3
    assert noted(here, "started") == [f"0 {pid}" for pid in [*pids, last]]
    assert noted(here, "stopped") == [f"0 {pid}" for pid in [*pids, last]]
    assert [record.getMessage() for record in caplog.records] == [
        f"task worker 0 (pid {pid}) is recycled" for pid in pids
    ]


async def test_a_recycled_worker_that_hangs_is_killed_after_max_wait_time(
    here: Path, gate: Gate
) -> None:
    """Its place is taken by another one then, which runs what was queued meanwhile."""
    (here / "hang").touch()
    async with open_workers(1, APP, max_wait_time=0.1, task_max_request=1) as workers:
        hanging = await workers.run(task_app.pid)
        assert await gate.wait_for() == [hanging]
        assert await workers.run(task_app.pid) != hanging
        assert not is_running(hanging)


async def test_a_recycled_worker_may_take_its_time(here: Path, gate: Gate) -> None:
    """Within max_wait_time it ends by itself, and a task that is queued waits for its successor."""
    (here / "hang").touch()
    async with open_workers(1, APP, task_max_request=1) as workers:
        leaving = await workers.run(task_app.pid)
        await gate.wait_for()
        await workers.post(task_app.pid)
        (state,) = workers.pool.statistics().workers
        assert (state.pid, state.state) == (leaving, "leaving")
        assert workers.pool.statistics().queued == 1
        gate.let_through()

    assert workers.finished[0].result != leaving
    assert workers.stopping.cut == 0


async def test_others_go_on_while_one_is_recycled(here: Path, gate: Gate) -> None:
    """A worker that leaves slowly holds up nobody's tasks."""
    async with open_workers(2, APP, task_max_request=40) as workers:
        (here / "hang").touch()
        while not gate.waiting:
            await workers.run(task_app.pid)
        (leaving,) = await gate.wait_for()
        outcomes = await workers.pool.run_tasks([(task_app.pid,)] * 10)
        assert leaving not in [outcome.result for outcome in outcomes]
        gate.let_through()
        await workers.until_whole(leaving)


async def test_a_life_of_one_task_is_one_task(here: Path) -> None:
    """Nothing is handed ahead to a worker that will not run it."""
    async with open_workers(2, APP, task_max_request=1) as workers:
        for number in range(12):
            await workers.post(recycled_app.run, number)

    assert len({completion.result for completion in workers.finished}) == 12
    assert sorted(map(int, noted(here, "runs"))) == list(range(12))
