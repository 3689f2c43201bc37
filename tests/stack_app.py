"""Tasks whose stacks are looked at; what `task_app.App` runs. No trio here."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, NoReturn

import task_app

from trioserver._stack_signal import STACK_SIGNAL

if TYPE_CHECKING:
    from trioserver._tasks._task import Task


class Together:
    """Its tasks are coroutines, so that several run in one process."""

    async def on_task(self, task: Task) -> None:
        import trio  # noqa: PLC0415  # as above

        if task.data == "spin":
            spin()
        await trio.sleep_forever()


def sleep() -> None:
    time.sleep(600)


def spin() -> NoReturn:
    while True:
        pass


def match() -> None:
    """Hold the GIL in one C call, for longer than anybody waits."""
    re.match("(a+)+$", "a" * 60 + "b")


def recurse(depth: int) -> None:
    if depth:
        recurse(depth - 1)
    sleep()


def stack_fd() -> int:
    """The descriptor to which this process shows its stack."""
    (fd,) = [
        int(name)
        for name in os.listdir("/dev/fd")
        if os.path.exists(f"/proc/self/fd/{name}")
        and "trioserver-stack" in os.readlink(f"/proc/self/fd/{name}")
    ]
    return fd


def close_and_wait(gate: str) -> None:
    os.close(stack_fd())
    task_app.wait(gate)


def let_go_and_wait(gate: str) -> None:
    faulthandler.unregister(STACK_SIGNAL)
    task_app.wait(gate)


def hold_back_and_wait(gate: str) -> None:
    threading.Thread(target=sleep, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {STACK_SIGNAL})
    task_app.wait(gate)


def scribble_and_wait(gate: str) -> None:
    """Write what is no stack, and move the place where the next one goes."""
    fd = stack_fd()
    os.pwrite(fd, b"\x1b[31mStack (most recent call first):\n" * 1000, 0)
    os.lseek(fd, 5000, os.SEEK_SET)
    task_app.wait(gate)


def scribble_for_ever() -> NoReturn:
    """Fake stacks, all the time, from another thread too."""

    def scribble() -> NoReturn:
        fd = stack_fd()
        while True:
            os.pwrite(fd, b"Stack (most recent call first):\n\x1b[31m\xff\r\n", 0)

    threading.Thread(target=scribble, daemon=True).start()
    scribble()


def start_fork_and_sleep(gate: str) -> None:
    """Say in ``gate`` which descriptors a program has, and which a forked child has."""
    with open(f"{gate}.waiting", "w") as out:
        subprocess.run(["ls", "-l", "/proc/self/fd"], stdout=out, check=True, close_fds=False)
        if os.fork() == 0:
            for name in os.listdir("/dev/fd"):
                with contextlib.suppress(OSError):  # the listing had one itself
                    out.write(os.readlink(f"/dev/fd/{name}") + "\n")
            out.write("forked\n")
            out.flush()
            os._exit(0)
        os.wait()
    sleep()
