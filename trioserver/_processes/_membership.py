"""What an event worker has from the server that it is a part of, and is asked for there."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

import trio

from trioserver._guard import contained
from trioserver._processes._channel import ALL, Channel, Say
from trioserver._processes._questions import Ask, Asker, Ids, NoAnswerError
from trioserver._processes._remote import RemoteDispatcher
from trioserver._statistics import ServerStatistics
from trioserver._tasks._payloads import load

if TYPE_CHECKING:
    from trioserver._app import App
    from trioserver._net._connections import Connections
    from trioserver._processes._channel import Record
    from trioserver._processes._room import Room
    from trioserver._server import Server
    from trioserver._settings import Settings
    from trioserver._stopping import Stopping
    from trioserver._tasks._pool import Pool

logger = logging.getLogger("trioserver.server")

_MAX_UNSENT: Final = 64 * 2**20
"""Bytes of messages, and all else, that may wait for the manager to read them."""
_MAX_MESSAGES: Final = 10_000
"""Messages that may wait for ``on_message``; those that come on top of these are lost."""
_MAX_MESSAGE_BYTES: Final = 64 * 2**20
"""Bytes of them, unless it is one alone."""


@final
class Member:
    """One event worker of several (`_server.Whole`).

    Args:
      app: Which it serves.
      settings: Those in force.
      worker_id: Its number.
      seat: Its place in ``room``.
      channel: To the manager.
      asker: To the manager, for what cannot wait.
      room: What all processes share.
      stopping: How it ends.
    """

    def __init__(
        self,
        app: App,
        settings: Settings,
        *,
        worker_id: int,
        seat: int,
        channel: Channel,
        asker: Asker,
        room: Room,
        stopping: Stopping,
    ) -> None:
        self._app = app
        self._settings = settings
        self._worker_id = worker_id
        self._seat = seat
        self._channel = channel
        self._asker = asker
        self._room = room
        self._stopping = stopping
        self._may_accept = trio.Event()
        self._statistics: ServerStatistics | None = None
        self.stream_ids = Ids(asker, Ask.STREAM_IDS)
        self.dispatcher = RemoteDispatcher(
            channel, room, seat, Ids(asker, Ask.TASK_IDS), self.statistics
        )
        self._messages_in, self._messages = trio.open_memory_channel[tuple[int, bytes]](
            _MAX_MESSAGES
        )
        self._message_bytes = 0
        # Since messages wait that left no room for others.
        self._lost_messages = 0
        # Set by the server, which is made later.
        self._server: Server

    # `Whole`

    def join(
        self,
        server: Server,
        connections: Connections,
        pool: Pool | None,  # noqa: ARG002  # its dispatcher is here
    ) -> None:
        self._server = server
        connections.on_count = self._has_connections
        connections.is_ahead = self._is_ahead

    def statistics(self) -> ServerStatistics:
        try:
            self._channel.flush()  # what was posted before counts
            answer = self._asker.ask(Ask.STATISTICS)
        except NoAnswerError:
            if self._statistics is None:
                raise
            logger.warning("the manager does not answer: these statistics are old")
            return self._statistics
        assert isinstance(answer, ServerStatistics)
        self._statistics = answer
        return answer

    def reload(self, *, only_task_workers: bool = False) -> None:
        if self._stopping.is_requested and not self._stopping.keeps_listening:
            raise RuntimeError("the server is stopping: it is not reloaded")
        if only_task_workers and not self._settings.task_worker_num:
            raise RuntimeError("task_worker_num is 0: this server has no task workers")
        self._channel.say(Say.RELOAD, only_task_workers)

    def shutdown(self) -> None:
        self._channel.say(Say.SHUTDOWN)

    def cancel(self, task_id: int) -> bool:
        if not 0 <= task_id < ALL:  # no id is like that, and it could not be asked for
            return False
        self._channel.flush()
        return bool(self._asker.ask(Ask.CANCEL, task_id))

    def send_message(self, worker_id: int | None, body: bytes) -> None:
        if self._channel.unsent > _MAX_UNSENT:
            raise trio.WouldBlock
        self._channel.say(Say.SEND, ALL if worker_id is None else worker_id, body=body)

    # What the event worker does

    async def wait_may_accept(self) -> None:
        """Say that it is ready, and wait until the sockets listen."""
        self._channel.say(Say.READY)
        await self._may_accept.wait()

    def accepts_no_more(self) -> None:
        """Say so: whoever connects from now on must get to others."""
        self._channel.say(Say.ACCEPTS_NO_MORE)

    def ask_to_be_replaced(self) -> None:
        """Have another process take over; the manager says when."""
        self._channel.say(Say.RECYCLE)

    async def hear_messages(self) -> None:
        """Call ``on_message`` for what others send, one after the other, until cancelled."""
        async for source, body in self._messages:
            self._message_bytes -= len(body)
            await contained(logger, "on_message", self._hear_message, source, body)
            if self._lost_messages and not self._messages.statistics().current_buffer_used:
                logger.error("%d messages are lost", self._lost_messages)
                self._lost_messages = 0

    async def _hear_message(self, source: int, body: bytes) -> None:
        assert self._app.on_message is not None, "others are not taken"
        # What unpickling raises is the app's as well.
        await self._app.on_message(self._server, source, load(body))

    def hear(self, records: list[Record]) -> None:
        """Do what the manager says."""
        for kind, number, body in self.dispatcher.hear(records):
            if kind == Say.MESSAGE:
                self._take_message(number, body)
            elif kind == Say.ACCEPT:
                self._may_accept.set()
            elif kind == Say.RETIRE:
                self._stopping.retire()
            elif kind == Say.STOP:
                self._may_accept.set()  # or it would wait for that, and not hear of the stop
                self._stopping.request()
            elif kind == Say.PING:
                self._channel.say(Say.PONG)

    def _has_connections(self, count: int) -> None:
        self._room.has_connections(self._seat, count)

    def _is_ahead(self) -> bool:
        """Whether somebody else has fewer connections."""
        return self._room.connections(self._seat) > self._room.fewest_connections()

    def _take_message(self, source: int, body: bytes) -> None:
        if self._app.on_message is None:  # a reload has taken it away
            return
        held = self._message_bytes
        if not held or held + len(body) <= _MAX_MESSAGE_BYTES:
            with suppress(trio.WouldBlock):
                self._messages_in.send_nowait((source, body))
                self._message_bytes += len(body)
                return
        if not self._lost_messages:
            waiting = self._messages.statistics().current_buffer_used
            logger.error("messages are being lost: %d wait for on_message already", waiting)
        self._lost_messages += 1
