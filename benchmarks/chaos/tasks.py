"""All that tasks do here; each function is a task's whole life, if it survives that long.

No Trio at the top: task workers load this module.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioserver import Task

FOREVER: Final = 1000.0
"""Seconds; longer than any deadline here."""
_HOARD_SIZE: Final = 32 * 2**20
_hoard: list[bytearray] = []


def give_back(task: Task) -> object:
    return task.data["key"]


def doze(task: Task) -> object:
    time.sleep(0.001 * (task.id % 30))
    return task.data["key"]


def say(task: Task) -> object:
    print(task.data, "x" * (task.id % 5000))
    return task.data["key"]


def tell(task: Task) -> object:
    for number in range(50):
        task.progress((task.data["key"], number))
        time.sleep(0.0002)
    return task.data["key"]


def hoard(task: Task) -> object:
    """Keep memory for good: the worker will be too large one day."""
    _hoard.append(bytearray(b"x") * _HOARD_SIZE)
    return task.data["key"]


def block_signals(task: Task) -> object:
    """And leave them blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return task.data["key"]


def fork_and_return(task: Task) -> object:
    """Both return; only the worker may go on."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return task.data["key"]


def fork_and_stay(task: Task) -> object:
    """The child stays until the worker ends."""
    if os.fork() == 0:
        time.sleep(FOREVER)
        os._exit(0)
    return task.data["key"]


def fail(task: Task) -> NoReturn:
    raise (ValueError, KeyError, SystemExit, KeyboardInterrupt, Unreduced, NeedsTwo)[task.id % 6](
        task.data["key"], "no good"
    )


def recurse(task: Task) -> object:
    return recurse(task)


def unpicklable(task: Task) -> object:
    return (lambda: None, threading.Lock(), Attack("raises"), Attack("exits"), Attack("later"))[
        task.id % 5
    ]


def oversleep(_task: Task) -> None:
    time.sleep(FOREVER)


def hold_the_gil(_task: Task) -> NoReturn:
    """In a C call that only a signal interrupts; a worker has handlers for some, and goes on."""
    pause = ctypes.PyDLL(None).pause
    while True:
        pause()


def stop_oneself(_task: Task) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(FOREVER)  # should somebody continue it


def leave(task: Task) -> NoReturn:
    os._exit(task.id % 256)


def segfault(_task: Task) -> object:
    return ctypes.string_at(0)


class Unreduced(Exception):
    def __reduce__(self) -> NoReturn:
        raise RuntimeError("not to be pickled")


class NeedsTwo(Exception):
    """Does not unpickle: its ``__init__`` wants more than what it keeps."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Attack:
    """A result that does not survive pickling."""

    def __init__(self, how: str) -> None:
        self._how = how

    def __reduce__(self) -> tuple[Any, ...]:
        if self._how == "raises":
            raise RuntimeError("not to be pickled")
        if self._how == "exits":
            return sys.exit, (3,)
        return _only_in, (os.getpid(),)


def _only_in(pid: int) -> object:
    """Unpickles in the process that pickled it, and ends any other one."""
    return None if os.getpid() == pid else sys.exit(4)


RETURNING: Final[dict[str, Callable[[Task], object]]] = {
    task.__name__: task
    for task in (
        give_back,
        doze,
        say,
        tell,
        hoard,
        block_signals,
        fork_and_return,
        fork_and_stay,
    )
}
"""Those that can end well."""
NEVER_RETURNING: Final[dict[str, Callable[[Task], object]]] = {
    task.__name__: task
    for task in (
        fail,
        recurse,
        unpicklable,
        oversleep,
        hold_the_gil,
        stop_oneself,
        leave,
        segfault,
    )
}
"""Those that end as some error, whatever happens."""
POSTING: Final = "post"
"""Posts further ones, and returns (`app`)."""
