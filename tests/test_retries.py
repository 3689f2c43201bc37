"""Attempts after the first one: of what, when, how many, and never after a cancellation."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import async_app
import check_app
import pytest
import server_apps
import task_app
import trio
from task_pools import open_served, open_tasks
from workers import Gate, until

from trioserver import TaskCancelled, TaskFailed, TaskTimeout, TaskWorkerCrashed
from trioserver._tasks import _attempts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trioserver import Completion

pytestmark = pytest.mark.usefixtures("form")

TIMEOUT = 0.3

# How attempts end, with which argument, how long each takes at the least, and as what error.
WAYS: list[tuple[Callable[..., object], object, float, type[Exception]]] = [
    (task_app.fail, ValueError, 0, TaskFailed),
    (task_app.slept, 60, TIMEOUT, TaskTimeout),
    (task_app.leave, 3, 0, TaskWorkerCrashed),
]


def timeout_of(function: Callable[..., object]) -> float:
    """Only what sleeps is to end by its deadline, on the slowest machine too."""
    return TIMEOUT if function is task_app.slept else math.inf


def traced(path: Path) -> list[tuple[int, float]]:
    """Attempts and their times, as `check_app.trace` has written them."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(number), float(at)) for number, at in map(str.split, lines)]


async def test_another_attempt_follows_at_growing_distances(tmp_path: Path) -> None:
    """After an exception, a timeout and a crash: 0.1 s, 0.2 s, 0.4 s; and one completion."""
    paths = [tmp_path / function.__name__ for function, *_ in WAYS]
    async with open_tasks(3) as tasks:
        for number, (function, arg, _, _) in enumerate(WAYS):
            await tasks.post(
                check_app.trace_and,
                str(paths[number]),
                4,
                function,
                arg,
                timeout=timeout_of(function),
                retries=5,
                task_worker=number,
            )
        ended = await tasks.until_finished(3)
        statistics = tasks.pool.statistics()

    assert [ended[number].result for number in range(3)] == ["attempt 4"] * 3
    assert [ended[number].attempt for number in range(3)] == [4] * 3
    assert (statistics.posted, statistics.completed, statistics.retried) == (3, 3, 9)
    for path, (_, _, least, _) in zip(paths, WAYS, strict=True):
        numbers, times = zip(*traced(path), strict=True)
        assert numbers == (1, 2, 3, 4)
        for number, delay in enumerate((0.1, 0.2, 0.4)):
            assert times[number + 1] - times[number] >= delay + least - 0.001, path
    assert traced(paths[0])[-1][1] - traced(paths[0])[0][1] < 10, "it is not much more than that"


async def test_the_last_attempt_decides(tmp_path: Path) -> None:
    """When none is left, its error is the task's; there is one completion."""
    async with open_tasks(3) as tasks:
        for number, (function, arg, _, _) in enumerate(WAYS):
            await tasks.post(
                check_app.trace_and,
                str(tmp_path / str(number)),
                9,
                function,
                arg,
                timeout=timeout_of(function),
                retries=1,
                task_worker=number,
            )
        ended = await tasks.until_finished(3)

    for number, (*_, error) in enumerate(WAYS):
        assert type(ended[number].error) is error
        assert ended[number].attempt == 2
        assert [attempt for attempt, _ in traced(tmp_path / str(number))] == [1, 2]


async def test_without_retries_nothing_runs_twice(tmp_path: Path) -> None:
    """Neither after an exception, nor after a deadline or a death."""
    async with open_tasks() as tasks:
        for number, (function, arg, _, error) in enumerate(WAYS):
            path = tmp_path / str(number)
            with pytest.raises(error):
                await tasks.run(
                    check_app.trace_and, str(path), 9, function, arg, timeout=timeout_of(function)
                )
            assert len(traced(path)) == 1
        assert tasks.pool.statistics().retried == 0


async def test_a_cancelled_attempt_is_the_last_one(gate: Gate) -> None:
    """The task has retries left, and does not run again."""
    async with open_tasks() as tasks:
        task_id = await tasks.post(task_app.wait, gate.path, retries=5)
        (pid,) = await gate.wait_for()
        assert tasks.pool.cancel(task_id)
        ended = await tasks.until_finished(1)
        assert not tasks.pool.cancel(task_id)
        assert await tasks.run(task_app.pid) != pid

    error = ended[task_id].error
    assert isinstance(error, TaskCancelled)
    assert error.begun
    assert ended[task_id].attempt == 1
    assert gate.waiting == [pid]


class Coroutines(async_app.App):
    """Its tasks can be cancelled without their worker."""

    async def on_finish(self, completion: Completion) -> None:
        """Not asked."""


async def test_a_cancelled_attempt_that_fails_by_itself() -> None:
    """That it was cancelled is the reason, so it is not tried again; its error is its own."""
    async with open_tasks(1, Coroutines) as tasks:
        pids = tasks.pids
        task_id = await tasks.post(async_app.raise_when_cancelled, retries=5)
        await until(lambda: tasks.pool.statistics().workers[0].running, "it runs")
        # It hears of it at its first checkpoint, if it has not come to the one it waits at.
        assert tasks.pool.cancel(task_id)
        ended = await tasks.until_finished(1)
        statistics = tasks.pool.statistics()
        assert tasks.pids == pids

    error = ended[task_id].error
    assert isinstance(error, TaskFailed)
    assert error.summary == "ValueError: nevertheless"
    assert (statistics.failed, statistics.retried, statistics.queued) == (1, 0, 0)


async def test_a_cancel_between_two_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes effect at once; no attempt follows."""
    monkeypatch.setattr(_attempts, "_FIRST_DELAY", 25)
    path = tmp_path / "runs"
    async with open_tasks() as tasks:
        pids = tasks.pids
        task_id = await tasks.post(
            check_app.trace_and, str(path), 9, task_app.fail, ValueError, retries=5
        )
        await until(lambda: tasks.pool.statistics().retried == 1, "it waits for its second attempt")
        assert tasks.pool.cancel(task_id)
        ended = await tasks.until_finished(1)
        assert tasks.pids == pids
        assert tasks.pool.statistics().queued == 0

    assert isinstance(ended[task_id].error, TaskCancelled)
    assert len(traced(path)) == 1


async def test_a_caller_that_leaves_between_two_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run_task is left at once, and nothing runs on."""
    monkeypatch.setattr(_attempts, "_FIRST_DELAY", 25)
    path = tmp_path / "runs"
    async with open_tasks() as tasks, trio.open_nursery() as calling:
        calling.start_soon(
            lambda: tasks.run(
                check_app.trace_and, str(path), 9, task_app.fail, ValueError, retries=5
            )
        )
        await until(lambda: tasks.pool.statistics().retried == 1, "it waits for its second attempt")
        calling.cancel_scope.cancel()
    assert len(traced(path)) == 1


class Failing(server_apps.Tasks):
    """Its connections post tasks with retries, which fail or wait."""

    async def on_receive(self, stream: object, data: bytes) -> None:
        await stream.task(data.decode(), retries=5)  # type: ignore[attr-defined]  # a Connection

    def on_task(self, task: object) -> object:
        with open(task.data, "a") as file:  # type: ignore[attr-defined]  # a Task
            file.write(f"{os.getpid()}\n")
        raise ValueError(task.data)  # type: ignore[attr-defined]  # a Task


failing = Failing()


async def test_a_connection_that_closes_between_two_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task has one completion, which says so, and is not tried again."""
    monkeypatch.setattr(_attempts, "_FIRST_DELAY", 25)
    failing.__init__()  # type: ignore[misc]  # as good as new
    path = tmp_path / "runs"
    async with open_served(failing, task_worker_num=1) as running:
        async with await running.connect() as client:
            await client.send(str(path).encode())
            await until(
                lambda: running.server.statistics().retried == 1,
                "it waits for its second attempt",
            )
        await until(lambda: failing.completions, "its completion")

    (completion,) = failing.completions
    assert isinstance(completion.error, TaskCancelled)
    assert completion.error.reason == "its connection closed"
    assert len(path.read_text().splitlines()) == 1
