"""Task pools at the one dispatcher of a manager, all in this process.

Only the processes are missing: the channels, the numbers that all share, and both ends are the real
ones.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import trio

from trioserver._processes._channel import Channel
from trioserver._processes._guest import Desk, Guest
from trioserver._processes._remote import RemoteDispatcher, flushing
from trioserver._processes._room import Room
from trioserver._tasks._pool_life import open_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from trioserver._pacing import Pacer
    from trioserver._processes._channel import Record
    from trioserver._settings import Settings
    from trioserver._stopping import Stopping
    from trioserver._tasks._dispatcher import Dispatcher
    from trioserver._tasks._finishing import OnFinish
    from trioserver._tasks._pool import Pool
    from trioserver._tasks._progress import OnProgress
    from trioserver._tasks._statistics import TaskStatistics

ALONE = "alone"
THROUGH_MANAGER = "through a manager"


def connected(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Two ends, non-blocking, until ``stack`` closes."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
        stack.enter_context(end)
    return ends


class EventWorker:
    """What an event worker process and its manager have of each other."""

    dispatcher_type = RemoteDispatcher

    def __init__(
        self,
        desk: Desk,
        seat: int,
        ends: tuple[socket.socket, socket.socket],
        nursery: trio.Nursery,
    ) -> None:
        size = desk.settings.max_task_size
        self.desk = desk
        self.ours, self.theirs = (Channel(end, nursery, size) for end in ends)
        desk.room.open_seat(seat)
        self.guest = Guest(desk, self.ours, seat)
        ids: Iterator[int] = desk.ids
        self.dispatcher = self.dispatcher_type(self.theirs, desk.room, seat, ids, self.statistics)

    def statistics(self) -> TaskStatistics:
        """Ask, as an event worker does: what it had said before comes first."""
        self.theirs.flush()
        self.read_all()
        return self.desk.dispatcher.statistics()

    def read_all(self) -> None:
        """The manager reads what has come."""
        self.ours.read_all(self.hear_guest)

    def hear_guest(self, records: list[Record]) -> None:
        assert not self.guest.hear(records)

    def hear_manager(self, records: list[Record]) -> None:
        assert not self.dispatcher.hear(records)

    def die(self) -> int:
        """As of now nothing is heard of it, and nothing is told."""
        if self.guest.is_gone:
            return 0
        self.ours.hang_up()
        self.theirs.hang_up()
        return self.guest.leave()


@asynccontextmanager
async def open_desk(dispatcher: Dispatcher, settings: Settings) -> AsyncIterator[Desk]:
    """The dispatcher, as a manager shares it."""
    room = Room()
    desk = Desk(dispatcher, settings, room, dispatcher.ids)
    try:
        yield desk
    finally:
        dispatcher._listeners.clear()
        room.close()


@asynccontextmanager
async def open_event_worker(
    desk: Desk,
    seat: int = 0,
    between: Callable[[ExitStack, trio.Nursery], tuple[socket.socket, socket.socket]] | None = None,
    worker_type: type[EventWorker] = EventWorker,
) -> AsyncIterator[EventWorker]:
    """A process that posts tasks; it dies at the end, and the manager hears what it had said."""
    with ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            ends = connected(stack) if between is None else between(stack, nursery)
            worker = worker_type(desk, seat, ends, nursery)
            nursery.start_soon(worker.ours.listen, worker.hear_guest)
            nursery.start_soon(worker.theirs.listen, worker.hear_manager)
            try:
                async with flushing(worker.dispatcher):
                    yield worker
            finally:
                worker.read_all()
                worker.die()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_pool_through_manager(
    dispatcher: Dispatcher,
    on_finish: OnFinish,
    on_progress: OnProgress | None,
    settings: Settings,
    stopping: Stopping,
    pacer: Pacer,
) -> AsyncIterator[Pool]:
    """`open_pool`, in an event worker of a manager that has ``dispatcher``."""
    async with (
        open_desk(dispatcher, settings) as desk,
        open_event_worker(desk) as worker,
        open_pool(worker.dispatcher, on_finish, on_progress, settings, stopping, pacer) as pool,
    ):
        yield pool
