"""The connections of an event worker, and how they end when it stops.

What each goes through is in `_life`. A stop takes them through two rings: `handling`, the
inner one, ends the wait for further frames, and then lasts until no callback runs any more;
`open_connections`, the outer one, closes what has stayed open so long, so that ``on_finish`` could
still answer.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from trioserver._net._connection import Connection
from trioserver._net._life import greet, live
from trioserver._net._readiness import EpollReadiness, make_readiness
from trioserver._net._relay import Relay
from trioserver._net._transport import SocketTransport, StreamTransport

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from trioserver._net._frame_limit import FrameLimit
    from trioserver._net._framing import Decoder, Framing
    from trioserver._net._readiness import Readiness
    from trioserver._net._transport import Transport
    from trioserver._pacing import Pacer
    from trioserver._server import Server
    from trioserver._stopping import Stopping


@attrs.frozen(kw_only=True)
class Protocol:
    """What the app does with its connections; `on_receive` or `on_stream` is there."""

    framing: Framing
    max_length: int
    """Of a frame, in bytes."""
    on_connect: Callable[[Connection], Awaitable[object]] | None = None
    on_receive: Callable[[Connection, bytes], Awaitable[object]] | None = None
    on_stream: Callable[[Connection], Awaitable[object]] | None = None
    on_close: Callable[[Connection], Awaitable[object]] | None = None

    def decoder(self) -> Decoder:
        """A decoder for one more connection."""
        return self.framing.decoder(self.max_length)


class Connections:
    """The open connections, and what they share.

    Args:
      protocol: What is done with them.
      ids: Theirs, unique in the server's life.
      max_conn: How many may be open at a time.
      readiness: Watches their sockets; run here.
      nursery: Where their Trio tasks live.
      pacer: Paces their hot calls.
      frame_limit: Counts their frames.
    """

    def __init__(
        self,
        protocol: Protocol,
        ids: Iterator[int],
        max_conn: int,
        readiness: Readiness,
        nursery: trio.Nursery,
        pacer: Pacer,
        frame_limit: FrameLimit | None = None,
    ) -> None:
        self.frame_limit = frame_limit
        self.protocol = protocol
        self.nursery = nursery
        self.pacer = pacer
        # Set by the server, which is made later and before the first connection comes.
        self.server: Server
        self.on_closing: Callable[[Connection], None] | None = None
        self.wait_heard: Callable[[Connection], Awaitable[object]] | None = None
        """Returns when all tasks that a connection has posted are over and heard of."""
        self.is_ahead: Callable[[], bool] = lambda: False
        """Whether another event worker should accept the next one."""
        self.on_count: Callable[[int], None] | None = None
        """Called with how many are open, whenever that changes."""
        self._max_conn = max_conn
        self._readiness = readiness
        self._ids = ids
        self._open: dict[int, Connection] = {}
        self._waiting_for_one_to_leave = trio.lowlevel.ParkingLot()
        # Those whose callbacks have not ended.
        self._handled: set[Connection] = set()
        # Those whose callbacks were ended by force, and are counted.
        self._cut: set[Connection] = set()
        self._all_handled = trio.Event()
        self._is_stopped = False
        self._closes_one_by_one = False
        self._is_closing = False
        self._relay: Relay | None = None
        if isinstance(readiness, EpollReadiness):
            if protocol.on_receive is None:
                nursery.start_soon(readiness.run)
            else:
                self._relay = Relay(readiness, self, protocol.on_receive)
                nursery.start_soon(self._relay.run)

    def __len__(self) -> int:
        return len(self._open)

    @property
    def behind(self) -> int:
        """How many connections have something to be done, and wait for their turn; or more."""
        return 0 if self._relay is None else self._relay.behind

    @property
    def handled_ones(self) -> tuple[Connection, ...]:
        """Those whose callbacks have not ended."""
        return tuple(self._handled)

    def all(self) -> tuple[Connection, ...]:
        """Those that are open now, the oldest first."""
        return tuple(connection for connection in self._open.values() if not connection.is_closed)

    # Coming

    @property
    def is_full(self) -> bool:
        """Whether ``max_conn`` are open."""
        return len(self._open) >= self._max_conn

    async def wait_room(self) -> None:
        """Until one more may come."""
        while self.is_full:
            await self._waiting_for_one_to_leave.park()

    async def wait_none(self) -> None:
        """Until none is open."""
        while self._open:
            await self._waiting_for_one_to_leave.park()

    def add_socket(self, sock: socket.socket) -> None:
        """Serve a connected, non-blocking socket; it is the connection's from now on."""
        connection = Connection(next(self._ids), self)
        transport = SocketTransport(sock, self._readiness, connection.was_reset)
        self._add(connection, transport)
        if self._relay is None:
            self.nursery.start_soon(live, connection, self)
        else:
            self.nursery.start_soon(greet, connection, self, self._relay.go_on)

    def add_stream(self, stream: trio.abc.Stream) -> None:
        """Serve a stream; it is the connection's from now on."""
        connection = Connection(next(self._ids), self)
        self._add(connection, StreamTransport(stream))
        self.nursery.start_soon(live, connection, self)

    def _add(self, connection: Connection, transport: Transport) -> None:
        connection.use(transport)
        self._open[connection.id] = connection
        self._handled.add(connection)
        self._count()

    def _count(self) -> None:
        if self.on_count is not None:
            self.on_count(len(self._open))

    # Going: what a connection's life calls

    def handled(self, connection: Connection) -> None:
        """Its callbacks have ended."""
        self._handled.discard(connection)
        if not self._handled:
            self._all_handled.set()

    async def wait_may_close(self, connection: Connection) -> None:
        """Until it may close."""
        if self._is_stopped and not self._is_closing:
            if not self._closes_one_by_one:
                await connection.stay_open()
            elif self.wait_heard is not None:
                # Its own tasks may yet have something to say to it; what others wait for, and may
                # take long, must not keep a client in the belief that somebody reads.
                await connection.stay_open_until(self.wait_heard)
        if self.on_closing is not None:
            self.on_closing(connection)

    def gone(self, connection: Connection) -> None:
        """It is closed, and ``on_close`` has run."""
        self._handled.discard(connection)
        del self._open[connection.id]
        self._count()
        self._waiting_for_one_to_leave.unpark_all()

    # Stopping

    def stop_reading(self, *, closes_one_by_one: bool = False) -> None:
        """Wait for no further frames; those that have come whole are still handled.

        Args:
          closes_one_by_one: Whether each connection closes when it has nothing more to do, and not
            all together at the end.
        """
        self._is_stopped = True
        self._closes_one_by_one = closes_one_by_one
        for connection in self._handled:
            connection._inbox.stop()

    @asynccontextmanager
    async def handling(self, stopping: Stopping) -> AsyncIterator[None]:
        """Inside, callbacks run; they have until the deadline then, and are cancelled after it."""
        try:
            yield
            self.stop_reading(closes_one_by_one=stopping.hands_over)
            with stopping.until_deadline():
                await self._wait_all_handled()
        finally:
            for connection in self._handled:
                if not self._is_idle(connection):
                    stopping.cut += 1
                    self._cut.add(connection)
                connection.cancel_callbacks()
        with stopping.for_a_stage():
            await self._wait_all_handled()

    def _is_idle(self, connection: Connection) -> bool:
        """Whether it only waits for a frame that would be the next call of ``on_receive``."""
        if self.protocol.on_stream is not None:
            return False
        return connection._inbox.is_waiting or connection.is_at_rest

    async def _wait_all_handled(self) -> None:
        while self._handled:
            self._all_handled = trio.Event()
            await self._all_handled.wait()

    async def close_all(self, stopping: Stopping) -> None:
        """Close all that are open, and wait for their ``on_close``."""
        self._is_closing = True
        for connection in self._open.values():
            connection.begin_close("server stopped")
        with stopping.for_a_stage():
            await self.wait_none()
        stopping.cut += len(set(self._open.values()) - self._cut)


@asynccontextmanager
async def open_connections(
    protocol: Protocol,
    *,
    ids: Iterator[int],
    max_conn: int,
    pacer: Pacer,
    stopping: Stopping,
    frame_limit: FrameLimit | None = None,
) -> AsyncIterator[Connections]:
    """Connections; at a regular end all are closed, and their ``on_close`` has run."""
    with make_readiness() as readiness:
        async with trio.open_nursery() as nursery:
            connections = Connections(
                protocol, ids, max_conn, readiness, nursery, pacer, frame_limit
            )
            yield connections
            await connections.close_all(stopping)
            nursery.cancel_scope.cancel()
