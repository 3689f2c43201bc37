"""An app whose tasks are coroutines, for task workers that run several at once."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

import trio

if TYPE_CHECKING:
    from trioserver._tasks._task import Task


class App:
    """A task is a coroutine function of this module that gets the task and its arguments."""

    async def on_task(self, task: Task) -> object:
        function, *args = task.data
        return await function(task, *args)


class _Called:
    async def __call__(self, prefix: str, task: Task) -> object:
        return prefix, task.data


class Hidden:
    """Its ``on_task`` is a coroutine function only at second sight."""

    on_task = staticmethod(functools.partial(_Called(), "hidden"))


async def echo(_task: Task, value: object) -> object:
    await trio.lowlevel.checkpoint()
    return value


# Waiting

_gates: dict[str, trio.Event] = {}


async def wait(_task: Task, name: str) -> str:
    """Until another task calls `open_gate`; not cancelled before it has begun."""
    await _gates.setdefault(name, trio.Event()).wait()
    return name


async def open_gate(_task: Task, name: str) -> None:
    _gates.setdefault(name, trio.Event()).set()


async def say_and_wait(task: Task) -> None:
    task.progress("waiting")
    await trio.sleep_forever()


async def return_when_cancelled(task: Task) -> str:
    try:
        await say_and_wait(task)
    except trio.Cancelled:  # noqa: ASYNC103  # on purpose
        return "nevertheless"  # noqa: ASYNC104
    return ""


async def raise_when_cancelled(task: Task) -> None:
    try:
        await say_and_wait(task)
    finally:
        raise ValueError("nevertheless")


async def return_without_hearing(task: Task) -> str:
    """Is cancelled in between, and never comes to a checkpoint that would tell."""
    task.progress("waiting")
    with trio.CancelScope(shield=True):
        await wait(task, "unheard")
    return "unheard"


async def cancelled_children(task: Task) -> None:
    """Ends as a group of nothing but cancellations."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(say_and_wait, task)


# Raising


async def fail(_task: Task, kind: type[BaseException], *args: object) -> NoReturn:
    raise kind(*args)


async def fail_in_a_nursery(_task: Task) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail, _task, ValueError, "one")
        nursery.start_soon(fail, _task, SystemExit, 3)


async def raise_a_stray_cancelled(_task: Task) -> None:
    """Keep that of one scope, and raise it where nobody has cancelled anything."""
    kept = None
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as exc:
            kept = exc
            raise
    assert kept is not None
    raise kept


async def leave_a_scope_open(_task: Task) -> None:
    trio.CancelScope().__enter__()


async def leave_a_nursery_open(_task: Task) -> None:
    manager = trio.open_nursery()
    nursery = await manager.__aenter__()
    nursery.start_soon(trio.sleep_forever)


async def stop_iterating(_task: Task) -> NoReturn:
    raise StopAsyncIteration


async def close_itself(_task: Task) -> NoReturn:
    raise GeneratorExit


async def a_coroutine(task: Task) -> object:
    return echo(task, 1)


async def a_lock(_task: Task) -> object:
    return threading.Lock()


# Abilities


async def post(task: Task, *data: object) -> list[int]:
    return [task.post(item) for item in data]


async def post_in_threads(task: Task, threads: int, times: int) -> list[int]:
    ids: list[int] = []

    def use(thread: int) -> None:
        for number in range(times):
            ids.append(task.post((thread, number)))  # noqa: PERF401

    async with trio.open_nursery() as nursery:
        for thread in range(threads):
            nursery.start_soon(trio.to_thread.run_sync, use, thread)
    return ids


async def post_in_a_thread_and_block(task: Task) -> list[int]:
    """The loop's own thread waits for one that posts: bad manners, but no deadlock."""
    ids: list[int] = []
    thread = threading.Thread(target=lambda: ids.append(task.post("blocked")))
    thread.start()
    thread.join()
    return ids


async def keep_posting(task: Task, name: str) -> int:
    """In a thread, until another task calls `open_gate`."""
    count = 0

    def use() -> None:
        nonlocal count
        while not _gates.setdefault(name, trio.Event()).is_set():
            task.post(None)
            count += 1

    await trio.to_thread.run_sync(use)
    return count


async def count_to(task: Task, last: int) -> None:
    for number in range(1, last + 1):
        task.progress(number)
        await trio.lowlevel.checkpoint()


# Processes


async def fork_and_return(_task: Task) -> tuple[int, int]:
    child = os.fork()
    if child:
        return os.getpid(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])  # noqa: ASYNC222
    return 0, 0


async def fork_and_raise(_task: Task) -> int:
    child = os.fork()
    if not child:
        raise ValueError("in the child")
    os.waitpid(child, 0)  # noqa: ASYNC222
    return os.getpid()


def fork_in_a_thread() -> tuple[int, int]:
    child = os.fork()
    if child:
        return os.getpid(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return 0, 0


async def leave(_task: Task, code: int) -> NoReturn:
    os._exit(code)


# What else it may see

_variable: contextvars.ContextVar[str] = contextvars.ContextVar("_variable", default="unset")


async def set_a_variable(_task: Task) -> str:
    was = _variable.get()
    _variable.set("set")
    return was


def thread_name() -> str:
    return threading.current_thread().name


def blocked_call() -> None:
    """In a thread, until `open_gate` is called with ``call``."""
    while "call" not in _gates or not _gates["call"].is_set():
        threading.Event().wait(0.001)


async def facts(_task: Task) -> dict[str, Any]:
    with contextlib.suppress(AttributeError):
        assert not sys.stdout.closed
    return {"main": threading.current_thread() is threading.main_thread()}
