"""Tasks that lay hands on their worker: each costs itself at the most, and never the server."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
from server_apps import tasks
from serving import is_running

from trioserver import TaskFailed, TaskWorkerCrashed
from trioserver.testing import open_app

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 30


def descriptors() -> list[int]:
    """All but the standard ones."""
    return [fd for fd in map(int, os.listdir("/dev/fd")) if fd > 2]


def truncate_all() -> str:
    """Would take the flight recorder's memory away."""
    refused = 0
    for fd in descriptors():
        try:
            os.ftruncate(fd, 0)
        except OSError:
            refused += 1
    return "done" if refused else "nothing was refused"


def scribble(fill: int) -> str:
    """Overwrite the flight recorder, and large results; what is given to others is read-only."""
    refused = 0
    for found in gc.get_objects():
        if isinstance(found, mmap.mmap):
            try:
                found[:] = bytes([fill]) * len(found)
            except TypeError:
                refused += 1
    return "done" if refused == 1 else f"{refused} were refused"


def shout(what: bytes) -> str:
    """Write to every descriptor."""
    for fd in descriptors():
        try:
            os.write(fd, what)
        except OSError:
            continue
    return "done"


def close_all() -> None:
    """Close every descriptor, and go on for longer than anybody waits."""
    os.closerange(3, 1000)
    time.sleep(600)


@pytest.mark.parametrize(
    ("fn", "args"),
    [(truncate_all, ()), (scribble, (0xFF,)), (scribble, (0,)), (scribble, (0x41,))],
)
async def test_it_costs_nobody_anything(
    fn: Callable[..., str],
    args: tuple[object, ...],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What it returns arrives, by the socket or the page; those behind it run all the same."""
    tasks.__init__()  # type: ignore[misc]  # as good as new
    with trio.fail_after(PATIENCE):
        async with open_app(tasks, task_worker_num=1) as running:
            server = running.server
            pid = await server.run_task("pid")
            behind: list[object] = []

            async def run_behind() -> None:
                behind.append(await server.run_task("echo behind"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_behind)
                assert await server.run_sync(fn, *args) == "done"
            assert behind == ["behind"]
            assert await server.run_task("pid") == pid

    assert running.server.cut == 0
    assert "Traceback" not in capfd.readouterr().err


async def test_a_task_that_closes_all_descriptors_has_crashed() -> None:
    """At once, though it goes on; the server waits for it no more than for anything else."""
    tasks.__init__()  # type: ignore[misc]  # as good as new
    with trio.fail_after(PATIENCE):
        async with open_app(tasks, task_worker_num=1) as running:
            server = running.server
            pid = await server.run_task("pid")
            with pytest.raises(TaskWorkerCrashed):
                await server.run_sync(close_all)
            assert await server.run_task("pid") != pid
            assert not is_running(pid)

    assert running.server.cut == 0


@pytest.mark.parametrize(
    "what", [b"\xff" * 1000, b"\0" * 1000, b"\0" * 3, b"GET / HTTP/1.1\r\n" * 10]
)
async def test_words_in_between_are_not_believed(
    what: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """A worker whose reports cannot be told from a task's own words is replaced; nothing hangs."""
    tasks.__init__()  # type: ignore[misc]  # as good as new
    with trio.fail_after(PATIENCE):
        async with open_app(tasks, task_worker_num=1) as running:
            server = running.server
            pid = await server.run_task("pid")
            # Whether its own report was in the page when the worker was killed is a race.
            with suppress(TaskWorkerCrashed):
                assert await server.run_sync(shout, what) == "done"
            assert await server.run_task("pid") != pid

    assert running.server.cut == 0
    assert "Traceback" not in capfd.readouterr().err


def zero_and_die() -> None:
    """Leave a page that looks as if nothing had ever begun."""
    scribble(0)
    os.kill(os.getpid(), 9)


def leave_a_trap(signum: int) -> int:
    """Have a signal exit the worker between two tasks."""
    signal.signal(signum, lambda *_: sys.exit(0))
    return os.getpid()


async def test_a_page_that_makes_no_sense_does_not_run_a_task_again() -> None:
    """Everything begun has crashed, once."""
    tasks.__init__()  # type: ignore[misc]  # as good as new
    with trio.fail_after(PATIENCE):
        async with open_app(tasks, task_worker_num=2) as running:
            with pytest.raises(TaskWorkerCrashed) as caught:
                await running.server.run_sync(zero_and_die)
            assert caught.value.signal == 9
            assert await running.server.run_task("echo again") == "again"


async def test_a_handler_that_exits_ends_its_worker_only() -> None:
    """Nothing of the app's is raised in the server, also what is raised between two tasks."""
    tasks.__init__()  # type: ignore[misc]  # as good as new
    with trio.fail_after(PATIENCE):
        async with open_app(tasks, task_worker_num=1) as running:
            pid = await running.server.run_sync(leave_a_trap, signal.SIGUSR1)
            os.kill(pid, signal.SIGUSR1)
            while await running.server.run_task("pid") == pid:  # noqa: ASYNC110  # it ends soon
                await trio.lowlevel.checkpoint()
    assert running.server.cut == 0


class Evil(Exception):
    """Its text is of a class whose truth exits."""

    def __str__(self) -> str:
        return Text("evil")


class Text(str):
    __slots__ = ()

    def __bool__(self) -> bool:  # noqa: PLE0304  # it never returns at all
        sys.exit(3)


def raise_evil() -> None:
    raise Evil


async def test_words_that_exit_are_words() -> None:
    """An exception whose text does things when it is looked at is still that task's error."""
    tasks.__init__()  # type: ignore[misc]  # as good as new
    with trio.fail_after(PATIENCE):
        async with open_app(tasks, task_worker_num=1) as running:
            with pytest.raises(TaskFailed, match=r"^Evil: evil"):
                await running.server.run_sync(raise_evil)
