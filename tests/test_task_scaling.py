"""The number of task workers changes while the pool works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import recycled_app
import task_app
import trio
from workers import Gate, open_workers, until

from trioserver import AppError, TaskCancelled

if TYPE_CHECKING:
    from pathlib import Path

APP = "recycled_app:App"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the workers note their lives."""
    monkeypatch.setenv(recycled_app.HERE, str(tmp_path))
    return tmp_path


async def test_more_and_fewer_workers_under_load(here: Path) -> None:
    """Each task runs once whatever happens; those that left have stopped as at the end."""
    async with open_workers(2, APP, max_queued_tasks=5000) as workers:
        seen = {*workers.pids}
        for at, number in enumerate((4, 1, 3, 2)):
            for task in range(1000):
                await workers.post(recycled_app.run, 1000 * at + task)
            await workers.engine.scale(number)
            assert len(workers.pids) == workers.engine.task_worker_num == number
            assert workers.dispatcher.workers == number
            seen |= {*workers.pids}
        await workers.pool.wait_idle()
        await workers.until_gone(*(seen - {*workers.pids}))
        await until(lambda: len(workers.pool.statistics().workers) == 2, "all have left")

    runs = sorted(map(int, (here / "runs").read_text().split()))
    assert runs == list(range(4000))
    assert len(workers.finished) == 4000
    assert {completion.error for completion in workers.finished} == {None}
    stopped = (here / "stopped").read_text().splitlines()
    assert sorted(int(line.split()[1]) for line in stopped) == sorted(seen)


async def test_further_numbers_are_ready_and_known() -> None:
    """Tasks can be pinned to them, and to no other ones."""
    async with open_workers(1) as workers:
        await workers.engine.scale(3)
        for number in range(3):
            options = workers.options(task_worker=number)
            pid = await workers.pool.run_task((task_app.pid,), options)
            assert pid == workers.pids[number]
        with pytest.raises(ValueError, match=r"^task_worker must be from 0 to 2: 3$"):
            workers.options(task_worker=3)


async def test_tasks_for_a_number_that_is_gone_end_at_once(gate: Gate) -> None:
    """As cancelled, and say so; the one that runs there goes on, and its worker leaves after it."""
    async with open_workers(2) as workers:
        pinned = {"task_worker": 1, "retries": 2}
        runs = await workers.post_with(pinned, task_app.wait, gate.path)
        (pid,) = await gate.wait_for()
        waiting = [await workers.post_with(pinned, task_app.pid) for _ in range(5)]
        await workers.engine.scale(1)
        await until(lambda: len(workers.finished) == 5, "they have ended")
        assert [completion.task_id for completion in workers.finished] == waiting
        for completion in workers.finished:
            assert isinstance(completion.error, TaskCancelled)
            assert "there is no task worker 1 any more" in str(completion.error)
        told = [(worker.id, worker.state) for worker in workers.pool.statistics().workers]
        assert told == [(0, "idle"), (1, "leaving")]
        gate.let_through()
        await workers.until_gone(pid)

    assert workers.finished[5].task_id == runs
    assert workers.finished[5].error is None


async def test_those_that_could_start_stay(here: Path) -> None:
    """One that cannot ends the change there, with its reason."""
    async with open_workers(1, APP) as workers:
        await workers.engine.scale(2)
        before = workers.pids
        (here / "die").write_text("3")
        reason = r"^task worker 2 \(pid \d+\) died while it was starting \(exit code 3\)$"
        with pytest.raises(AppError, match=reason):
            await workers.engine.scale(4)
        assert workers.pids == before
        assert workers.dispatcher.workers == 2
        (here / "die").unlink()
        await workers.engine.scale(3)
        assert workers.pids[:2] == before
        assert len(workers.pids) == 3


async def test_changes_wait_for_each_other() -> None:
    """In the order in which they were asked for."""
    async with open_workers(2) as workers:
        before = workers.pids
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.engine.reload)
            await until(lambda: workers.pids != before, "it has begun")
            nursery.start_soon(workers.engine.scale, 1)
            await until(lambda: workers.engine._changes.statistics().tasks_waiting, "it waits")
            assert len(workers.pids) == 2
            nursery.start_soon(workers.engine.scale, 3)
        assert len({*workers.pids, *before}) == 5


@pytest.mark.parametrize("number", [0, -3])
async def test_there_is_one_worker_at_least(number: int) -> None:
    """Else nobody would ever run what is queued."""
    async with open_workers(1) as workers:
        reason = rf"^the number of task workers must be from 1 to 1000: {number}$"
        with pytest.raises(ValueError, match=reason):
            await workers.engine.scale(number)
