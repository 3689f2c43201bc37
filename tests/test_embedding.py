"""Task pools in programs that have no server of ours, over real task workers."""

from __future__ import annotations

import logging
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import embedded_app
import pytest
import task_app
import trio
from embedded_app import first, second
from serving import PATIENCE, children_of, is_running
from workers import Gate, until

from trioserver import (
    Settings,
    TaskCancelled,
    TaskFailed,
    TaskPool,
    TaskTimeout,
    TaskWorkerCrashed,
    open_task_pool,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from trioserver import Completion


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Nobody has heard anything yet."""
    yield
    for teller in (first, second):
        teller.finished.clear()
        teller.progress.clear()


@asynccontextmanager
async def open_pool(
    app: object = first, number: int = 1, max_wait_time: float = PATIENCE, **settings: float
) -> AsyncIterator[TaskPool]:
    chosen = Settings(
        task_worker_num=number,
        max_wait_time=max_wait_time,
        **settings,  # type: ignore[arg-type]  # as Settings itself says
    )
    with trio.fail_after(2 * PATIENCE):
        async with open_task_pool(app, chosen) as pool:
            yield pool


async def test_tasks_end_at_on_finish() -> None:
    """A task is posted at once; how it ended comes to the app, with what was posted."""
    async with open_pool() as pool:
        ids = [await pool.task((task_app.echo, number)) for number in range(3)]
        ids.append(pool.task_nowait((task_app.fail, ValueError, "no good")))

    assert [completion.task_id for completion in first.finished] == ids
    assert [completion.result for completion in first.finished[:3]] == [0, 1, 2]
    assert [completion.stream for completion in first.finished] == [None] * 4
    assert first.finished[3].data == (task_app.fail, ValueError, "no good")
    with pytest.raises(TaskFailed, match=r"^ValueError: no good\n"):
        _ = first.finished[3].result


async def test_a_task_may_have_its_own_on_finish() -> None:
    """It hears in place of the app's."""
    heard: list[Completion] = []

    async def hear(completion: Completion) -> None:
        heard.append(completion)

    async with open_pool() as pool:
        await pool.task((task_app.echo, 1), on_finish=hear)
        await pool.task((task_app.echo, 2))

    assert [completion.result for completion in heard] == [1]
    assert [completion.result for completion in first.finished] == [2]


async def test_callers_wait_for_results() -> None:
    """Their outcomes come to them, and not to on_finish."""
    async with open_pool(number=2) as pool:
        assert await pool.run_task((task_app.echo, 1)) == 1
        outcomes = await pool.run_tasks([(task_app.echo, 2), (task_app.leave, 3)])
        assert await pool.run_sync(divmod, 7, 2) == (3, 1)
        with pytest.raises(TaskFailed, match=r"^ValueError: no good\n"):
            await pool.run_task((task_app.fail, ValueError, "no good"))
        with pytest.raises(TaskTimeout):
            await pool.run_task((task_app.slept, 600), timeout=0.05)

    assert outcomes[0].result == 2
    assert isinstance(outcomes[1].error, TaskWorkerCrashed)
    assert outcomes[1].error.exit_code == 3
    assert first.finished == []


async def test_a_task_can_be_cancelled(gate: Gate) -> None:
    """One that runs ends with its worker, one that is queued never runs."""
    async with open_pool() as pool:
        runs = await pool.task((task_app.wait, gate.path))
        queued = await pool.task((task_app.wait, gate.path))
        await gate.wait_for()
        assert pool.cancel(queued)
        assert pool.cancel(runs)
        await until(lambda: len(first.finished) == 2, "both have ended")
        assert not pool.cancel(runs)
        assert await pool.run_task((task_app.echo, 1)) == 1

    begun = {
        completion.task_id: completion.error.begun
        for completion in first.finished
        if isinstance(completion.error, TaskCancelled)
    }
    assert begun == {runs: True, queued: False}


async def test_tasks_tell_and_post(gate: Gate) -> None:
    """Progress comes while the task runs; what a task posts ends at on_finish, too."""
    async with open_pool() as pool:
        tells = await pool.task((embedded_app.tell, "half", gate.path))
        await until(lambda: first.progress, "the value has come")
        assert first.progress == [(tells, "half")]
        assert first.finished == []
        gate.let_through()
        posted = await pool.run_task((embedded_app.post, task_app.echo, "by a task"))

    assert {completion.task_id: completion.result for completion in first.finished} == {
        tells: "half",
        posted: "by a task",
    }


async def test_statistics(gate: Gate) -> None:
    """They count what this pool has done, and what it does."""
    async with open_pool(number=2) as pool:
        assert pool.settings.task_worker_num == 2
        assert repr(pool) == "<TaskPool of 2 task workers>"
        await pool.run_task((task_app.echo, 1))
        waits = await pool.task((task_app.wait, gate.path))
        (pid,) = await gate.wait_for()
        now = pool.statistics()
        gate.let_through()

    assert (now.posted, now.completed, now.running, now.queued) == (2, 1, 1, 0)
    (worker,) = [worker for worker in now.workers if worker.running]
    assert (worker.pid, worker.running[0].task_id) == (pid, waits)
    assert now.is_balanced


async def test_leaving_waits_for_what_was_posted(gate: Gate) -> None:
    """Queued tasks run, and what on_finish posts for them does, too."""

    async def post_again(completion: Completion) -> None:
        await first.on_finish(completion)
        await pool.task((task_app.echo, "again"))

    async with open_pool() as pool:
        await pool.task((task_app.wait, gate.path))
        for number in range(10):
            await pool.task((task_app.echo, number))
        await pool.task((task_app.echo, "last"), on_finish=post_again)
        await gate.wait_for()
        gate.let_through()

    results = [completion.result for completion in first.finished]
    assert results[1:] == [*range(10), "last", "again"]


async def test_leaving_cuts_what_takes_longer_than_max_wait_time(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends as cancelled, its completion is delivered, and the log counts it."""
    async with open_pool(max_wait_time=0.05) as pool:
        await pool.task((task_app.wait, gate.path))
        await pool.task((task_app.echo, 1))
        (pid,) = await gate.wait_for()

    assert {str(completion.error) for completion in first.finished} == {
        "the task was cancelled before it began: the server stopped",
        "the task was cancelled while it ran: the server stopped",
    }
    assert len(first.finished) == 2
    assert _warnings(caplog) == ["2 tasks and callbacks were cut"]
    assert not is_running(pid)


async def test_the_door_is_closed_behind_the_body() -> None:
    """A pool that was left takes no more tasks."""
    async with open_pool() as pool:
        pass

    with pytest.raises(trio.ClosedResourceError):
        await pool.task((task_app.echo, 1))
    with pytest.raises(trio.ClosedResourceError):
        await pool.run_task((task_app.echo, 1))


async def test_two_pools_at_the_same_time(gate: Gate) -> None:
    """Each has its workers, its ids and its app; the end of one is nothing to the other."""
    async with open_pool(first) as one:
        (first_pid,) = _pids(one)
        async with open_pool(second) as two:
            (second_pid,) = _pids(two)
            assert await one.task((task_app.pid,)) == 0
            assert await two.task((task_app.pid,)) == 0
            waits = await one.task((task_app.wait, gate.path))
            await gate.wait_for()
        assert not is_running(second_pid)
        assert one.statistics().running == 1
        gate.let_through()

    assert [completion.result for completion in first.finished] == [first_pid, first_pid]
    assert [completion.result for completion in second.finished] == [second_pid]
    assert first.finished[1].task_id == waits


async def test_nothing_is_left() -> None:
    """Neither processes, whether they are idle or not, nor descriptors."""
    before = len(os.listdir("/proc/self/fd"))
    async with open_pool(number=2) as pool:
        pids = _pids(pool)
        await pool.run_tasks([(task_app.echo, number) for number in range(10)])

    assert not any(map(is_running, pids))
    assert not set(children_of(os.getpid())) & set(pids)
    # multiprocessing's resource tracker stays, with one of its own.
    assert len(os.listdir("/proc/self/fd")) <= before + 1


async def test_an_app_named_by_text() -> None:
    """As on the command line: ``module:attr``."""
    async with open_pool("embedded_app:first") as pool:
        await pool.task((task_app.echo, 1))

    assert [completion.result for completion in first.finished] == [1]


def _pids(pool: TaskPool) -> list[int]:
    return [worker.pid for worker in pool.statistics().workers if worker.pid is not None]


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
