"""Whatever a task raises or returns, its error is told, and its worker goes on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import task_app
from workers import open_workers

from trioserver._errors import TaskFailed, TaskWorkerCrashed

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("form")

# What is raised in the worker, its summary, and what of it survives.
RAISED: list[tuple[Callable[..., object], tuple[Any, ...], str, type[BaseException] | None]] = [
    (task_app.fail, (ValueError, "no good"), "ValueError: no good", ValueError),
    (task_app.fail, (KeyError, "key"), "KeyError: 'key'", KeyError),
    (task_app.fail, (ExceptionGroup, "two", [OSError(1)]), "two", ExceptionGroup),
    (task_app.fail, (ValueError, "\udcff"), "ValueError: \\udcff", ValueError),
    (task_app.fail, (SystemExit, 3), "SystemExit: 3", SystemExit),
    (task_app.fail, (KeyboardInterrupt,), "KeyboardInterrupt", KeyboardInterrupt),
    (task_app.fail, (GeneratorExit,), "GeneratorExit", GeneratorExit),
    (task_app.recurse, (), "RecursionError: maximum recursion depth", RecursionError),
    (task_app.fail, (task_app.NeedsTwo, "one", "two"), "NeedsTwo: one and two", None),
    (task_app.fail, (task_app.Keeps,), "Keeps: kept", None),
    (task_app.fail, (task_app.Silent,), "Silent: <its message cannot", task_app.Silent),
    (task_app.fail, (task_app.Unreduced, "text"), "Unreduced: text", None),
    (task_app.fail, (task_app.Exits, "text"), "Exits: text", None),
    (task_app.fail, (task_app.OnlyThere, "text"), "OnlyThere: text", None),
    (task_app.fail, (3,), "TypeError: 'int' object is not callable", TypeError),
    (task_app.result, ("raises",), "TypeError: the task's result of type Result", TypeError),
    (task_app.result, ("exits",), "TypeError: the task's result of type Result", TypeError),
    (task_app.result, ("no",), "TypeError: the task's result of type Result", TypeError),
    (task_app.lock, (), "TypeError: the task's result of type lock cannot", TypeError),
    (task_app.coroutine, (), "TypeError: the task returned a coroutine", TypeError),
]


async def test_every_error_is_told_and_the_worker_goes_on() -> None:
    """C11: Type, message, remote traceback, and the original where that survives."""
    async with open_workers() as workers:
        pids = workers.pids
        outcomes = await workers.pool.run_tasks(
            (function, *args) for function, args, _, _ in RAISED
        )
        assert [await workers.run(task_app.pid)] == pids == workers.pids

    for (function, _args, summary, original), outcome in zip(RAISED, outcomes, strict=True):
        error = outcome.error
        assert isinstance(error, TaskFailed), summary
        assert summary in error.summary
        assert str(error).startswith(error.summary)
        assert type(error.original) is (type(None) if original is None else original), summary
        assert error.__cause__ is error.original
        assert error.summary.partition(":")[0] in error.remote_traceback
        if function is task_app.fail:
            assert "task_app.py" in error.remote_traceback
            assert "in fail\n" in error.remote_traceback
            assert "trioserver" not in error.remote_traceback


async def test_errors_of_run_sync_are_told_the_same_way() -> None:
    """There is no on_task in between, but it is guarded alike."""
    async with open_workers() as workers:
        pids = workers.pids
        for function, args, _, original in RAISED:
            with pytest.raises(TaskFailed) as info:
                await workers.pool.run_sync(function, args)
            assert type(info.value.original) is (type(None) if original is None else original)
        assert workers.pids == pids


async def test_a_result_that_does_not_unpickle_here_is_an_error_here() -> None:
    """It may even try to exit: neither the server nor the worker does."""
    async with open_workers() as workers:
        pids = workers.pids
        with pytest.raises(TaskFailed, match=r"^the result cannot be unpickled: SystemExit: 5$"):
            await workers.run(task_app.result, "exits elsewhere")
        assert workers.pids == pids


async def test_data_that_does_not_unpickle_there_is_an_error_of_the_task() -> None:
    """It was accepted, since only the worker can know."""
    async with open_workers() as workers:
        pids = workers.pids
        data = task_app.Result("exits elsewhere")
        with pytest.raises(TaskFailed, match=r"^SystemExit: 5\n"):
            await workers.run(task_app.echo, data)
        assert workers.pids == pids


async def test_data_that_does_not_pickle_raises_at_its_caller() -> None:
    """Nothing was accepted: the next task has the first id."""
    async with open_workers() as workers:
        for data in (threading.Lock(), task_app.Result("raises"), lambda: None):
            with pytest.raises(
                TypeError, match=r"^the task's data of type tuple cannot be pickled"
            ):
                await workers.post(task_app.echo, data)
        assert await workers.post(task_app.echo, 1) == 0

    assert [completion.result for completion in workers.finished] == [1]


@pytest.mark.parametrize(
    ("function", "args", "exit_code", "signal"),
    [
        (task_app.leave, (0,), 0, None),
        (task_app.leave, (3,), 3, None),
        (task_app.crash, (), -11, 11),
    ],
)
async def test_a_task_that_ends_its_process_has_crashed(
    function: Callable[..., object], args: tuple[object, ...], exit_code: int, signal: int | None
) -> None:
    """Exit code or signal is told; the worker is replaced, and the queue goes on."""
    async with open_workers() as workers:
        (pid,) = workers.pids
        outcomes = await workers.pool.run_tasks(
            [(task_app.pid,), (function, *args), (task_app.pid,), (task_app.pid,)]
        )

    before, crashed, *after = outcomes
    assert before.result == pid
    assert isinstance(crashed.error, TaskWorkerCrashed)
    assert (crashed.error.exit_code, crashed.error.signal) == (exit_code, signal)
    assert {type(outcome.result) for outcome in after} == {int}
    assert pid not in {outcome.result for outcome in after}


async def test_a_task_that_spoils_the_flight_recorder_has_crashed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing that the page says is believed, and the log says why."""
    async with open_workers() as workers:
        with pytest.raises(TaskWorkerCrashed, match=r"^.* \(exit code 4\)$"):
            await workers.run(task_app.spoil_the_page)
        await workers.until_whole()
        assert await workers.run(task_app.echo, 1) == 1

    messages = [record.getMessage() for record in caplog.records]
    assert messages.count("task worker 0 has overwritten its flight recorder") == 1
