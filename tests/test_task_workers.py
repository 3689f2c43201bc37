"""Tasks in real worker processes: what travels, in which order, and by whom it is run."""

from __future__ import annotations

import os
import subprocess
import sys
from random import Random
from typing import TYPE_CHECKING

import pytest
import task_app
from serving import ROOT
from workers import Gate, open_workers, until

from trioserver._tasks import _door
from trioserver._tasks._recorder import MAX_HANDED

if TYPE_CHECKING:
    from pathlib import Path


async def test_results_arrive_as_themselves() -> None:
    """C3: None is a result like any other, and so is everything that looks like nothing."""
    values: list[object] = [
        None,
        False,
        0,
        0.0,
        "",
        b"",
        [],
        {},
        "\ud800",
        2**100,
        {"a": ([1], {2})},
    ]
    async with open_workers() as workers:
        for value in values:
            await workers.post(task_app.echo, value)
        outcomes = await workers.pool.run_tasks((task_app.echo, value) for value in values)
        await workers.pool.wait_idle()

    for completions in (workers.finished, outcomes):
        results = [completion.result for completion in completions]
        assert results == values
        assert [type(result) for result in results] == [type(value) for value in values]
    assert [completion.data for completion in workers.finished] == [
        (task_app.echo, value) for value in values
    ]


async def test_payloads_of_any_size_are_exact_to_the_byte() -> None:
    """Around the sizes at which something changes: pages, socket buffers, the flight recorder."""
    sizes = [0, 1]
    for edge in (8 * 1024, 64 * 1024, 256 * 1024):
        sizes += [edge - 1, edge, edge + 1]
    sizes.append(16 * 1024 * 1024)
    random = Random(1)
    payloads = [random.randbytes(size) for size in sizes]
    async with open_workers(2) as workers:
        outcomes = await workers.pool.run_tasks((task_app.echo, data) for data in payloads)
        for data in payloads:
            assert await workers.run(task_app.echo, [data]) == [data]

    assert all(outcome.result == data for outcome, data in zip(outcomes, payloads, strict=True))


async def test_four_thousand_tasks_have_four_thousand_completions() -> None:
    """No id comes twice, every result is its own task's, and all workers take part."""
    async with open_workers(4) as workers:
        ids = [await workers.post(task_app.echo, number) for number in range(4000)]
        await workers.pool.wait_idle()

    assert ids == list(range(4000))
    assert len(workers.finished) == 4000
    assert {completion.task_id: completion.result for completion in workers.finished} == {
        number: number for number in ids
    }
    assert {completion.task_worker for completion in workers.finished} == {0, 1, 2, 3}


async def test_one_worker_runs_in_the_order_of_the_posts() -> None:
    """C5: A burst of many messages, first come first served; completions come in that order too."""
    async with open_workers() as workers:
        for number in range(2048):
            await workers.post(task_app.echo, number)
        await workers.pool.wait_idle()

    assert [completion.result for completion in workers.finished] == list(range(2048))


async def test_no_short_task_waits_for_a_long_one(gate: Gate) -> None:
    """Two that block and a hundred short ones on three workers; before any run time is known."""
    async with open_workers(3) as workers:
        for _ in range(2):
            await workers.post(task_app.wait, gate.path)
        for _ in range(100):
            await workers.post(task_app.pid)
        blocked = await gate.wait_for(2)
        await until(lambda: len(workers.finished) == 100, "all short tasks have ended")
        assert len({completion.result for completion in workers.finished} | set(blocked)) == 3
        gate.let_through(2)

    assert len(workers.finished) == 102
    assert {completion.result for completion in workers.finished[100:]} == set(blocked)


async def test_short_tasks_are_taken_back_from_a_worker_that_is_held_up(gate: Gate) -> None:
    """Though run times were short until now, and many had been handed ahead."""
    async with open_workers(2) as workers:
        for _ in range(1000):
            await workers.post(task_app.echo, None)
        await workers.post(task_app.wait, gate.path)
        for _ in range(1000):
            await workers.post(task_app.pid)
        await gate.wait_for(1)
        await until(lambda: len(workers.finished) == 2000, "all short tasks have ended")
        gate.let_through()


async def test_what_a_task_and_its_completion_know() -> None:
    """Ids, workers and times."""
    async with open_workers(2) as workers:
        await workers.post(task_app.slept, 0.05)
        outcome = await workers.outcome(task_app.describe)
        pid = await workers.pool.run_sync(os.getpid, ())
        assert pid in workers.pids

    assert outcome.result == (
        1,
        outcome.task_worker,
        outcome.task_worker,
        1,
        f"<Task 1 on task worker {outcome.task_worker}, attempt 1>",
    )
    (slept,) = workers.finished
    assert slept.ran >= 0.05
    assert slept.waited >= 0


async def test_run_sync_runs_any_importable_function() -> None:
    """With its arguments, and no on_task in between; its errors come back."""
    async with open_workers() as workers:
        assert await workers.pool.run_sync(divmod, (7, 3)) == (2, 1)
        assert await workers.pool.run_sync(os.path.join, ("a", "b")) == "a/b"
        with pytest.raises(TypeError, match=r"lambda.* with its arguments .* cannot be pickled"):
            await workers.pool.run_sync(lambda: 1, ())


async def test_a_stopped_worker_gives_back_what_it_has_not_begun(gate: Gate) -> None:
    """More cancelled tasks than its flight recorder tells apart; none of them ever runs."""
    async with open_workers() as workers:
        (pid,) = workers.pids
        os.kill(pid, 19)
        for _ in range(2 * MAX_HANDED):
            workers.pool.cancel(await workers.post(task_app.wait, gate.path))
        os.kill(pid, 18)
        assert await workers.run(task_app.pid) == pid

    assert gate.waiting == []
    assert len(workers.finished) == 2 * MAX_HANDED
    assert not any(completion.error.begun for completion in workers.finished)  # type: ignore[union-attr]


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux alone has such policies")
async def test_workers_take_nobody_off_a_core_by_waking_up() -> None:
    """However short tasks are, the event worker runs on while it hands them over."""
    async with open_workers() as workers:
        policy = await workers.pool.run_sync(os.sched_getscheduler, (0,))

    assert policy == os.SCHED_BATCH


async def test_workers_import_no_trio() -> None:
    """An app without it starts four times as quickly; of this package, only what they need."""
    async with open_workers() as workers:
        assert await workers.run(task_app.imported, "task_app") == ["task_app"]
        assert await workers.run(task_app.imported, "trio", "trioserver._settings") == []


def test_what_workers_load_imports_no_attrs() -> None:
    """trio-parallel imports some by itself; this package adds nothing to it."""
    code = "import sys, trioserver._tasks._inside, trioserver._tasks._lifeline; print(*sys.modules)"
    imported = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()

    assert "trioserver._tasks._recorder" in imported
    assert not {"trio", "attr", "attrs", "outcome", "trio_parallel"} & set(imported)


async def test_a_start_and_a_stop_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process, no file, no descriptor."""
    monkeypatch.setattr(_door, "_SHARED_MEMORY", str(tmp_path))
    descriptors: list[int] = []
    for _ in range(6):
        async with open_workers(2) as workers:
            pids = workers.pids
            assert await workers.run(task_app.pid) in pids
        await workers.until_gone(*pids)
        assert os.listdir(tmp_path) == []
        descriptors.append(len(os.listdir("/proc/self/fd")))

    # trio-parallel forgets a process when it pleases: some descriptors of the last ones stay.
    assert max(descriptors) <= min(descriptors) + 4
