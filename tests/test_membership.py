"""What an event worker has of the whole server, also where its manager does not answer."""

from __future__ import annotations

import socket
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from model_engine import ModelEngine
from serving import PATIENCE
from through_manager import connected, open_desk, open_event_worker
from trio.testing import wait_all_tasks_blocked

from trioserver import Settings
from trioserver._app import load_app
from trioserver._pacing import Pacer
from trioserver._processes._channel import Channel, Say
from trioserver._processes._membership import Member
from trioserver._processes._questions import Asker
from trioserver._processes._room import open_room
from trioserver._stopping import Stopping
from trioserver._tasks._pool_life import open_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trioserver import Completion, Connection
    from trioserver._tasks._statistics import TaskStatistics


class App:
    async def on_receive(self, stream: Connection, data: bytes) -> None: ...


@asynccontextmanager
async def open_member(stopping: Stopping) -> AsyncIterator[Member]:
    """One whose manager is there, and does nothing."""
    with ExitStack() as stack:
        room = stack.enter_context(open_room())
        sock, _ = connected(stack)
        asking, _ = map(stack.enter_context, socket.socketpair())
        async with trio.open_nursery() as nursery:
            yield Member(
                load_app(App),
                Settings(task_worker_num=1),
                worker_id=0,
                seat=0,
                channel=Channel(sock, nursery, 1000),
                asker=Asker(asking),
                room=room,
                stopping=stopping,
            )
            nursery.cancel_scope.cancel()


async def test_a_stop_before_it_may_accept() -> None:
    """It need not wait for that any more."""
    stopping = Stopping(5)
    async with open_member(stopping) as member:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as starting:
                starting.start_soon(member.wait_may_accept)
                await wait_all_tasks_blocked()
                member.hear([(Say.STOP, 0, b"")])
    assert stopping.is_requested


@pytest.mark.parametrize("task_id", [-1, 2**64])
async def test_a_task_that_cannot_be(task_id: int) -> None:
    """It is not there to be cancelled, as in one process; nobody is asked."""
    async with open_member(Stopping(5)) as member:
        assert not member.cancel(task_id)


async def test_a_pool_ends_while_the_manager_does_not_answer() -> None:
    """It has heard all that it must know."""

    async def on_finish(_: Completion) -> None: ...

    def statistics() -> TaskStatistics:
        raise RuntimeError("the manager does not answer")

    settings = Settings()
    async with (
        open_desk(ModelEngine().dispatcher, settings) as desk,
        open_event_worker(desk) as worker,
    ):
        worker.dispatcher._statistics = statistics
        stopping = Stopping(5)
        with trio.fail_after(PATIENCE):
            async with open_pool(worker.dispatcher, on_finish, None, settings, stopping, Pacer()):
                pass
