"""One life of an event worker process, seen from the manager: starts that fail, and bad answers."""

from __future__ import annotations

import math
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from serving import PATIENCE
from workers import until

from trioserver import Settings
from trioserver._processes import _event_worker, _signs_of_life
from trioserver._processes._channel import Say
from trioserver._processes._event_worker import EventWorker
from trioserver._processes._plan import Plan
from trioserver._processes._room import open_room

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SAY = """\
import socket, sys, time
from trioserver._processes._boot import Boot
from trioserver._processes._channel import HEAD, Say

sock = socket.socket(fileno=0)
Boot.receive(sock)
kind, body = Say(int(sys.argv[1])), eval(sys.argv[2])
sock.sendall(HEAD.pack(kind, 0, len(body)) + body)
time.sleep(600)
"""


class Nobody:
    """A manager that is asked nothing."""

    def worker_asks(self, *_: object) -> None:
        raise AssertionError("it asks")

    answer = worker_asks


@asynccontextmanager
async def event_worker(**settings: Any) -> AsyncIterator[EventWorker]:
    """One that lives while inside, and is dead then."""
    plan = Plan(
        name="app",
        spec="app",
        callbacks=(),
        has_async_task=False,
        settings=Settings(**settings),
        own_settings=None,
        files=(),
        main=None,
        path=(),
    )
    with trio.fail_after(PATIENCE), open_room() as room:
        async with trio.open_nursery() as nursery:
            worker = EventWorker(0, 0, plan, (), None, room, Nobody())
            nursery.start_soon(worker.live)
            yield worker
            nursery.cancel_scope.cancel()
    assert worker.state == "dead"


def says(monkeypatch: pytest.MonkeyPatch, kind: Say, body: str) -> None:
    """Have its process say one thing, and nothing else ever."""
    command = [sys.executable, "-c", SAY, str(int(kind)), body]
    monkeypatch.setattr(_event_worker, "python_command", lambda *_: command)


@pytest.mark.parametrize("body", ["b'['*10**5", "b'['", "b'{}'", "b'1'", "b'\\xff'"])
async def test_a_reason_that_is_nonsense(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """It costs that process its life, and the manager nothing."""
    says(monkeypatch, Say.FAILED, body)
    async with event_worker() as worker:
        await worker.ended.wait()
        assert worker.failure is None
        assert worker.exit_code == -9


async def test_it_is_killed_before_there_is_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then that dies as soon as it is there."""
    says(monkeypatch, Say.READY, "b''")
    async with event_worker() as worker:
        assert worker.pid is None
        worker.kill()
        await worker.ended.wait()
        assert worker.exit_code == -9


async def test_a_process_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves the reason, and no descriptor."""
    fds = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(_event_worker, "python_command", lambda *_: ["/nowhere"])
    async with event_worker() as worker:
        await worker.ended.wait()
        assert worker.failure is not None
        assert worker.failure[0].startswith("[Errno 2]")
    assert set(os.listdir("/proc/self/fd")) == fds


async def test_one_that_may_be_silent_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for signs of life, and not complained of."""
    monkeypatch.setattr(_signs_of_life, "_BEAT", 0.001)
    says(monkeypatch, Say.READY, "b''")
    async with event_worker(worker_timeout=math.inf) as worker:
        await until(lambda: worker.signs_of_life._beats > 1, "it is silent")
