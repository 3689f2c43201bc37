"""Apps of the checks: a task is a function and its arguments, for plain and for coroutine workers.

No trio here: a worker that imports it starts slowly.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import task_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioserver import Completion, Task


class App:
    """Functions of this module get the task first, those of others only their arguments."""

    def on_task(self, task: Task) -> object:
        function, *args = task.data
        return function(task, *args) if function.__module__ == __name__ else function(*args)

    async def on_finish(self, completion: Completion) -> None:
        """Not asked: whoever posts says who is to hear of it."""


class CoroutineApp:
    """The same as a coroutine function, which blocks its worker all the same."""

    async def on_task(self, task: Task) -> object:
        return App.on_task(App(), task)

    async def on_finish(self, completion: Completion) -> None:
        """See `App.on_finish`."""


def come_to(gate: str, pid: int) -> None:
    """Say by way of ``gate`` who is there (`workers.Gate.waiting`)."""
    with open(f"{gate}.waiting", "a") as waiting:
        waiting.write(f"{pid}\n")


# Runs that leave a trace


def count(task: Task, path: str) -> int:
    """A line with the task's id for every run; who ran it."""
    write_id(task, path)
    return os.getpid()


def trace(task: Task, path: str) -> None:
    """A line with the attempt and the time of its begin."""
    with open(path, "a") as file:
        file.write(f"{task.attempt} {time.monotonic()}\n")


def trace_and(
    task: Task, path: str, last: int, function: Callable[..., object], arg: object
) -> str:
    """Do as ``function`` does, up to the ``last`` attempt, which succeeds."""
    trace(task, path)
    if task.attempt < last:
        function(arg)
    return f"attempt {task.attempt}"


def write_id(task: Task, path: str) -> int:
    """A line with the task's id, which is also the result."""
    with open(path, "a") as file:
        file.write(f"{task.id}\n")
    return task.id


def write_id_and_die(task: Task, path: str, dies: bool) -> int:  # noqa: FBT001  # travels as data
    write_id(task, path)
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    return task.id


def pid_and(_task: Task, value: object) -> tuple[int, object]:
    return os.getpid(), value


def worker_and(task: Task, value: object) -> tuple[int, object]:
    return task.worker_id, value


def succeed_at(task: Task, last: int, function: Callable[..., object], arg: object) -> int:
    """Do as ``function`` does before the ``last`` attempt."""
    if task.attempt < last:
        function(arg)
    return task.attempt


def stop_itself(_task: Task) -> int:
    os.kill(os.getpid(), signal.SIGSTOP)
    return os.getpid()


def attempt(task: Task) -> int:
    return task.attempt


def post(task: Task, *data: object) -> list[int]:
    return [task.post(item) for item in data]


def post_until_full(task: Task, most: int) -> tuple[int, str]:
    """How many were accepted before one was refused, and how that was said."""
    for number in range(most):
        try:
            task.post((task_app.echo, number))
        except Exception as exc:  # noqa: BLE001  # the test looks at it
            return number, f"{type(exc).__module__}.{type(exc).__name__}: {exc}"
    return most, "never full"


# Hanging, each at a gate and with a subprocess of its own, which come there too


def _begin(gate: str) -> None:
    with_all_descriptors = subprocess.Popen(["sleep", "600"], close_fds=False)
    come_to(gate, with_all_descriptors.pid)
    come_to(gate, os.getpid())


def hang_in_sleep(_task: Task, gate: str) -> None:
    _begin(gate)
    time.sleep(60)


def hang_in_c(_task: Task, gate: str) -> None:
    """With the GIL in its hands."""
    _begin(gate)
    ctypes.PyDLL(None).sleep(60)


def hang_in_recv(_task: Task, gate: str) -> None:
    _begin(gate)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.recv(1)


def hang_stopped(_task: Task, gate: str) -> None:
    _begin(gate)
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(60)


def hang_deaf(_task: Task, gate: str) -> None:
    """All signals are blocked that can be."""
    _begin(gate)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(60)


def hang_in_a_loop(_task: Task, gate: str) -> None:
    """And what it catches."""
    _begin(gate)
    while True:
        try:
            time.sleep(0)
        except BaseException:  # noqa: ASYNC103, BLE001  # it does not want to end
            continue  # noqa: ASYNC104
