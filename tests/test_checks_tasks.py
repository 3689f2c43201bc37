"""Checks of what the task pool promises, by the numbers of the list that they come from."""

from __future__ import annotations

import os
import signal
from random import Random
from typing import TYPE_CHECKING, Any

import check_app
import pytest
import task_app
from task_pools import Clock, numbers_in, open_tasks

from trioserver import TaskTimeout, TaskWorkerCrashed

if TYPE_CHECKING:
    from pathlib import Path

    from workers import Gate

pytestmark = pytest.mark.usefixtures("form")

SOON = 10.0
"""Seconds in which what takes milliseconds has happened on any machine."""


async def test_recycled_workers_lose_nothing(tmp_path: Path) -> None:
    """C4: 4,000 tasks, four workers of 200 tasks each: 4,000 runs and completions, 16 processes.

    A worker leaves after 150 to 200 tasks, so that not all do at the same time.
    """
    path = str(tmp_path / "runs")
    async with open_tasks(4, task_max_request=200) as tasks:
        for _ in range(4000):
            await tasks.post(check_app.count, path)
        ended = await tasks.until_finished(4000)
        statistics = tasks.pool.statistics()

    assert sorted(ended) == list(range(4000))
    assert sorted(numbers_in(path)) == list(range(4000))
    runs_of: dict[int, int] = {}
    for completion in ended.values():
        runs_of[completion.result] = runs_of.get(completion.result, 0) + 1
    assert len(runs_of) >= 16
    assert max(runs_of.values()) <= 200
    assert (statistics.completed, statistics.crashed, statistics.retried) == (4000, 0, 0)


async def test_payloads_are_exact_to_the_byte() -> None:
    """C6: Around the sizes at which others change their way, both ways at once and one by one."""
    random = Random(6)
    sizes = [0, 8179, 8180, 8181, 2**16 - 1, 2**16, 2**16 + 1, 16 * 2**20]
    payloads = [random.randbytes(size) for size in sizes]
    async with open_tasks(2) as tasks:
        outcomes = await tasks.pool.run_tasks((task_app.echo, data) for data in payloads)
        for data in payloads:
            assert await tasks.run(task_app.echo, data) == data
    for outcome, data in zip(outcomes, payloads, strict=True):
        assert outcome.result == data


async def test_a_late_result_reaches_nobody_else() -> None:
    """C8: Tasks that end in the moment of their deadline; the next waiter gets its own result."""
    timeout = 0.05
    in_time = 0
    async with open_tasks() as tasks:
        for number in range(15):
            late = await tasks.outcome(task_app.slept, timeout - 0.0002, timeout=timeout)
            assert await tasks.run(task_app.echo, number) == number
            if late.error is None:
                assert late.result == timeout - 0.0002
                in_time += 1
            else:
                assert isinstance(late.error, TaskTimeout)
        statistics = tasks.pool.statistics()

    assert (statistics.completed, statistics.timed_out) == (15 + in_time, 15 - in_time)


async def test_two_slow_ones_of_five() -> None:
    """C9: Three values and two `TaskTimeout`, at their places; a deadline is each task's own."""
    items = [
        (task_app.echo, "a"),
        (task_app.slept, 60),
        (task_app.echo, "c"),
        (task_app.slept, 60),
        (task_app.echo, "e"),
    ]
    async with open_tasks(3) as tasks:
        clock = Clock()
        outcomes = await tasks.pool.run_tasks(items, timeout=0.5)
        assert clock.seconds < SOON

    assert [outcomes[number].result for number in (0, 2, 4)] == ["a", "c", "e"]
    for number in (1, 3):
        error = outcomes[number].error
        assert isinstance(error, TaskTimeout)
        assert error.seconds == 0.5
    assert tasks.finished == []


@pytest.mark.parametrize(
    ("death", "exit_code"),
    [("kill", -signal.SIGKILL), ("crash", -signal.SIGSEGV), ("leave", 3)],
)
async def test_a_worker_that_dies_in_a_task(gate: Gate, death: str, exit_code: int) -> None:
    """C10: The waiter hears how (`TaskWorkerCrashed`); what is queued runs; the pool is whole."""
    async with open_tasks(2) as tasks:
        before = tasks.pids
        held = await tasks.post(task_app.wait, gate.path)
        (other,) = await gate.wait_for()
        function: Any = {"kill": task_app.wait, "crash": task_app.crash, "leave": task_app.leave}
        args = {"kill": (gate.path,), "crash": (), "leave": (3,)}[death]
        dies = await tasks.post(function[death], *args)
        queued = [await tasks.post(task_app.pid) for _ in range(20)]
        clock = Clock()
        if death == "kill":
            _, victim = await gate.wait_for(2)
            os.kill(victim, signal.SIGKILL)
        ended = await tasks.until_finished(21)
        assert clock.seconds < SOON

        error = ended[dies].error
        assert isinstance(error, TaskWorkerCrashed)
        assert error.exit_code == exit_code
        assert error.signal == (-exit_code if exit_code < 0 else None)
        gate.let_through()
        ended = await tasks.until_finished(22)
        after = await tasks.until_whole()

    (dead,) = set(before) - {other}
    assert set(before) & set(after) == {other}
    assert ended[held].result == other
    assert {ended[task_id].error for task_id in queued} == {None}
    assert dead not in {ended[task_id].result for task_id in queued}
    assert ended[dies].attempt == 1
