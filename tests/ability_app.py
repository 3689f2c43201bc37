"""Apps whose tasks use what a task can do: plain functions here, coroutines in `async_app`."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import task_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioserver._tasks._task import Task


class App:
    """A task is a function of this module that gets the task and its arguments."""

    def on_task(self, task: Task) -> object:
        function, *args = task.data
        return function(task, *args)


kept: list[Task] = []


def keep(task: Task) -> None:
    kept.append(task)


def echo(_task: Task, value: object) -> object:
    return value


def sized(_task: Task, size: int) -> bytes:
    return bytes(size)


def fail_at_length(_task: Task, size: int) -> None:
    raise ValueError("x" * size)


def raised(call: Callable[..., object], *args: object) -> tuple[str, str]:
    """Type and text of what a call raises."""
    try:
        call(*args)
    except Exception as exc:  # noqa: BLE001  # whatever it is, the test sees it
        return type(exc).__name__, str(exc)
    return "nothing", ""


def try_to(task: Task, name: str, *args: object) -> tuple[str, str]:
    return raised(getattr(task, name), *args)


def try_with_kept(_task: Task, name: str, *args: object) -> tuple[str, str]:
    """The same with a task that is over."""
    return raised(getattr(kept[-1], name), *args)


def try_with_a_lock(task: Task, name: str) -> tuple[str, str]:
    return raised(getattr(task, name), threading.Lock())


def try_in_a_child(task: Task, name: str, *args: object) -> int:
    """The exit code of a forked child that tries, 7 if it was refused."""
    child = os.fork()
    if not child:
        os._exit(7 if raised(getattr(task, name), *args)[0] == "RuntimeError" else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def post(task: Task, *data: object) -> list[int]:
    return [task.post(item) for item in data]


def count_to(task: Task, last: int) -> None:
    for number in range(1, last + 1):
        task.progress(number)


def progress_and_wait(task: Task, value: object, gate: str) -> None:
    task.progress(value)
    task_app.wait(gate)


def in_threads(task: Task, name: str, threads: int, times: int) -> list[int]:
    """Use an ability in threads at once, and wait for them in the loop's own."""
    results: list[Any] = []

    def use(thread: int) -> None:
        for number in range(times):
            results.append(getattr(task, name)((thread, number)))  # noqa: PERF401

    started = [threading.Thread(target=use, args=(thread,)) for thread in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return results


def post_without_end(task: Task) -> None:
    """In a thread that does not end with the task; it says how it ended in a progress of none."""

    def use() -> None:
        try:
            while True:
                task.post("more")
        except RuntimeError as exc:
            endings.append(str(exc))

    threading.Thread(target=use, daemon=True).start()
    task.post("first")


endings: list[str] = []


def ending(_task: Task) -> str:
    """How the thread of `post_without_end` ended; waits for that."""
    while not endings:
        threading.Event().wait(0.001)
    return endings.pop()


def has_imported(_task: Task, name: str) -> bool:
    return name in sys.modules
