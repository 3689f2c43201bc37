"""The life of one connection.

1. ``on_connect``; then frames go to ``on_receive``, one call each and one at a time, or all is left
   to ``on_stream``.
2. That ends with the client's last frame, a reset, `Connection.aclose`, an exception, or the
   server's stop, where the connection stays open until it is told to close. Then what it owns is
   ended: its tasks, and what it has started.
3. What is left to send is sent, the transport is closed, and ``on_close`` runs, once and always.

It is one Trio task (`live`); or, where ``on_receive`` runs on a relay, one for what comes before
that (`greet`), if anything does, and one for what comes after it (`leave`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from trioserver._errors import name_of
from trioserver._guard import contained
from trioserver._net._endings import endings_left_out

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable

    from trioserver._net._connection import Connection
    from trioserver._net._connections import Connections, Protocol

logger = logging.getLogger("trioserver.connection")

CLOSE_TIME: Final = 5.0
"""Seconds that a closing connection waits for what it has started, and then for its peer to take
what is left to send."""


async def live(connection: Connection, connections: Connections) -> None:
    """Live through all of it."""
    protocol = connections.protocol
    try:
        place = Place(connection)
        callbacks = _call(connection, protocol, place)
        error = await contained(logger, place, connection.run_callbacks, callbacks)
        note_why(connection, protocol, place.callback, error)
        connections.handled(connection)
        await connections.wait_may_close(connection)
    finally:
        # Cancelled or not: what follows ends at once then, but it does happen.
        await _end(connection, connections)  # noqa: ASYNC102


async def greet(
    connection: Connection,
    connections: Connections,
    go_on: Callable[[Connection, str, BaseException | None], None],
) -> None:
    """Live until frames are next, and then call ``go_on``."""
    place = Place(connection)
    error = None
    try:
        callbacks = _greet(connection, connections.protocol, place)
        error = await contained(logger, place, connection.run_callbacks, callbacks)
    finally:
        # This task's own and no copy: what ``on_connect`` has set, ``on_receive`` may reset.
        connection._context = trio.lowlevel.current_task().context
        go_on(connection, place.callback, error)


async def leave(
    connection: Connection, connections: Connections, context: contextvars.Context
) -> None:
    """Live from the last frame on, in ``context``, that of the callbacks so far.

    `note_why` was called, and `Connections.handled`.
    """
    leaving = _leave(connection, connections)
    await connection._outbox.write_before_waiting(leaving, context.run)


async def _leave(connection: Connection, connections: Connections) -> None:
    try:
        await connections.wait_may_close(connection)
    finally:
        await _end(connection, connections)  # noqa: ASYNC102  # as in `live`


async def _end(connection: Connection, connections: Connections) -> None:
    on_close = connections.protocol.on_close
    connection.begin_close("server stopped")
    try:
        await _release(connection)
    finally:
        try:
            if on_close is not None:
                name = f"on_close of connection {connection.id}"
                await contained(logger, name, on_close, connection)  # noqa: ASYNC102  # as in `live`
        finally:
            connections.gone(connection)


async def _release(connection: Connection) -> None:
    """End what belongs to it, let the client take what is left, and close the transport."""
    try:
        with trio.move_on_after(CLOSE_TIME):
            if connection._background is not None:
                await connection._background.end()
        with trio.move_on_after(CLOSE_TIME):
            await connection._outbox.wait_empty()
    finally:
        connection.close_here()
        await connection._transport.aclose()  # noqa: ASYNC102  # it closes at once then


def note_why(
    connection: Connection, protocol: Protocol, callback: str, error: BaseException | None
) -> None:
    """The callbacks have nothing more to do: say why, and close unless it may answer yet."""
    framing_error = connection._inbox.framing_error
    if error is not None:
        connection.begin_close(f"{callback} raised {name_of(error)}")
    elif framing_error is not None and not connection.is_closed:
        logger.warning(
            "connection %d from %s is closed: %s",
            connection.id,
            connection.peername,
            framing_error,
        )
        connection.begin_close(str(framing_error))
    elif connection._inbox.is_at_eof:
        connection.begin_close("closed by the client")
    elif protocol.on_stream is not None and not connection._inbox.is_stopped:
        connection.begin_close("closed by the server")


class Place:
    """Where a connection's callbacks are, for the log."""

    __slots__ = ("_connection", "callback")

    def __init__(self, connection: Connection, callback: str = "framing") -> None:
        self._connection = connection
        self.callback = callback

    def __str__(self) -> str:
        return f"{self.callback} of connection {self._connection.id}"


async def _begin(connection: Connection, protocol: Protocol, place: Place) -> None:
    connection._inbox.use(protocol.decoder())
    if protocol.on_connect is not None:
        place.callback = "on_connect"
        await protocol.on_connect(connection)


async def _greet(connection: Connection, protocol: Protocol, place: Place) -> None:
    with endings_left_out(connection, place):
        await _begin(connection, protocol, place)


async def _call(connection: Connection, protocol: Protocol, place: Place) -> None:
    with endings_left_out(connection, place):
        await _begin(connection, protocol, place)
        if protocol.on_stream is not None:
            place.callback = "on_stream"
            await protocol.on_stream(connection)
        elif protocol.on_receive is not None:
            place.callback = "on_receive"
            take_frame, on_receive = connection._inbox.take_frame, protocol.on_receive
            while True:
                frame = None if connection.is_closed else take_frame()
                if frame is None:
                    try:
                        frame = await connection.receive_frame()
                    except trio.EndOfChannel:
                        return
                await on_receive(connection, frame)
