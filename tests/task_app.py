"""What tests run in task workers. No trio here: a worker that imports it starts slowly."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioserver._tasks._task import Task


class App:
    """A task is a function of this module and its arguments."""

    worker_id = -1

    def on_task_worker_start(self, worker_id: int) -> None:
        self.worker_id = worker_id

    def on_task(self, task: Task) -> object:
        function, *args = task.data
        if function is describe:
            return task.id, task.worker_id, self.worker_id, task.attempt, repr(task)
        return function(*args)


def describe() -> None:
    """Stands for the task as the worker sees it."""


def echo(value: Any) -> Any:  # as its tests have it
    return value


def pid() -> int:
    return os.getpid()


def slept(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


# Waiting


def wait(gate: str) -> int:
    """Say by way of ``gate`` who waits, until one byte for it is there."""
    with open(f"{gate}.waiting", "a") as waiting:
        waiting.write(f"{os.getpid()}\n")
    with open(gate, "rb", buffering=0) as fifo:
        fifo.read(1)
    return os.getpid()


def say_and_wait(text: str, gate: str) -> None:
    print(text)  # noqa: T201  # to be seen
    wait(gate)


def hold_the_gil(gate: str) -> None:
    """In one C call, which nothing interrupts."""
    with open(f"{gate}.waiting", "a") as waiting:
        waiting.write(f"{os.getpid()}\n")
    ctypes.PyDLL(None).pause()


# Dying


def leave(code: int) -> NoReturn:
    os._exit(code)


def crash() -> None:
    ctypes.string_at(0)


def spoil_the_page() -> NoReturn:
    """Overwrite whatever shared memory can be written, and die."""
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "r+b", buffering=0) as memory:
        for line in maps:
            if "trioserver-task-worker" in line and " rw" in line:
                start, end = (int(text, 16) for text in line.split()[0].split("-"))
                memory.seek(start)
                memory.write(b"\xff" * (end - start))
    os._exit(4)


# Raising


def fail(make: Callable[..., BaseException], *args: object) -> NoReturn:
    raise make(*args)


def recurse() -> None:
    recurse()


class NeedsTwo(Exception):
    """Does not unpickle: its ``__init__`` wants more than what it keeps."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Keeps(Exception):
    """Does not pickle: it has a lock."""

    def __init__(self) -> None:
        super().__init__("kept")
        self.lock = threading.Lock()


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Unreduced(Exception):
    def __reduce__(self) -> NoReturn:
        raise RuntimeError("not to be pickled")


class Exits(Exception):
    """Unpickling it ends the process that does it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, (3,)


class OnlyThere(Exception):
    """Unpickles in the process that pickled it, and is something else elsewhere."""

    def __reduce__(self) -> tuple[Any, ...]:
        return only_in, (os.getpid(), OnlyThere, "not an exception")


def only_in(pid: int, there: Callable[[], object], elsewhere: object) -> object:
    if os.getpid() == pid:
        return there()
    if elsewhere is None:
        sys.exit(5)
    return elsewhere


class Result:
    """A result that can be pickled in the ways of the exceptions above."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        match self.how:
            case "raises":
                raise RuntimeError("not to be pickled")
            case "exits":
                return sys.exit, (3,)
            case "exits elsewhere":
                return only_in, (os.getpid(), object, None)
            case _:
                return int, ("no number",)


def result(how: str) -> Result:
    return Result(how)


def lock() -> object:
    return threading.Lock()


def function() -> object:
    return lambda: None


async def coroutine() -> None:
    pass


# Other processes


def start_and_wait(close_fds: bool, gate: str) -> None:  # noqa: FBT001  # travels as data
    """Wait with a subprocess of one's own, which says in ``gate`` who it is."""
    with subprocess.Popen(["sleep", "600"], close_fds=close_fds) as process:
        with open(f"{gate}.waiting", "a") as waiting:
            waiting.write(f"{process.pid}\n")
        wait(gate)


def fork_and_wait(gate: str) -> None:
    if os.fork() == 0:
        wait(gate)
        os._exit(0)
    wait(gate)


def fork_and_leave(gate: str, code: int) -> NoReturn:
    """Die, and leave behind a child that has a session of its own and waits."""
    if os.fork() == 0:
        os.setsid()
        wait(gate)
        os._exit(0)
    while not os.path.exists(f"{gate}.waiting"):
        time.sleep(0.001)
    os._exit(code)


def fork_and_return() -> tuple[int, int]:
    """Both return; only the worker may go on."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.getpid(), status
    return 0, 0


def fork_and_raise() -> int:
    child = os.fork()
    if not child:
        raise ValueError("in the child")
    os.waitpid(child, 0)
    return os.getpid()


def terminate_a_subprocess() -> int:
    with subprocess.Popen(["sleep", "600"]) as process:
        process.terminate()
        return process.wait()


# Looking around


def imported(*names: str) -> list[str]:
    return [name for name in names if name in sys.modules]


def session() -> tuple[int, int, int]:
    return os.getpid(), os.getsid(0), os.getpgrp()
