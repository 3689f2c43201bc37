"""Connections without a server around them, over everything that can carry their bytes."""

from __future__ import annotations

import itertools
import logging
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import attrs
import pytest
import trio
import trio.testing

from trioserver._net import _readiness
from trioserver._net._connections import Connections, Protocol, open_connections
from trioserver._net._framing import EofFraming, Framing
from trioserver._pacing import Pacer
from trioserver._stopping import Stopping

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from trioserver._net._connection import Connection

PATIENCE: Final = 30.0
"""Seconds until a test that hangs fails; no test depends on it otherwise."""
LINES: Final = EofFraming(b"\n")

SOCKETS: Final = ("epoll", "plain", "unix")
"""Real sockets: TCP watched by epoll, TCP watched by Trio's own waits, a Unix socket."""
CARRIERS: Final = (*SOCKETS, "memory")

each_carrier = pytest.mark.parametrize("carrier", CARRIERS)
each_socket = pytest.mark.parametrize("carrier", SOCKETS)
each_tcp = pytest.mark.parametrize("carrier", ["epoll", "plain"])


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection: a client's, and what its server has accepted."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    for sock in (client, accepted):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, accepted


def reset(stream: trio.abc.Stream) -> None:
    """Close a client's TCP socket so that the other end sees a reset."""
    assert isinstance(stream, trio.SocketStream)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


@attrs.frozen
class Net:
    """Connections that are being served, and the clients' ends of them."""

    carrier: str
    connections: Connections
    stopping: Stopping
    clients: list[trio.abc.HalfCloseableStream]

    def connect(self) -> trio.abc.HalfCloseableStream:
        """One more client."""
        client: trio.abc.HalfCloseableStream
        if self.carrier == "memory":
            client, theirs = trio.testing.memory_stream_pair()
            self.connections.add_stream(theirs)
        else:
            ours, theirs_ = socket.socketpair() if self.carrier == "unix" else tcp_pair()
            theirs_.setblocking(False)
            client = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
            self.connections.add_socket(theirs_)
        self.clients.append(client)
        return client


@asynccontextmanager
async def serving(
    carrier: str = "epoll",
    *,
    on_receive: Callable[[Connection, bytes], Awaitable[object]] | None = None,
    on_stream: Callable[[Connection], Awaitable[object]] | None = None,
    on_connect: Callable[[Connection], Awaitable[object]] | None = None,
    on_close: Callable[[Connection], Awaitable[object]] | None = None,
    framing: Framing = LINES,
    max_length: int = 2**20,
    max_conn: int = 100,
    max_wait_time: float = PATIENCE,
    pacer: Pacer | None = None,
    may_fail: bool = False,
) -> AsyncIterator[Net]:
    """Serve with these callbacks; at a regular end, stop as a server does.

    A callback's exception, which costs a server no more than the connection, fails the test, unless
    it ``may_fail``: a callback's assertions are assertions of the test.
    """
    protocol = Protocol(
        framing=framing,
        max_length=max_length,
        on_connect=on_connect,
        on_receive=on_receive,
        on_stream=on_stream,
        on_close=on_close,
    )
    stopping = Stopping(max_wait_time)
    clients: list[trio.abc.HalfCloseableStream] = []
    failures = _Failures()
    connection_logger = logging.getLogger("trioserver.connection")
    connection_logger.addHandler(failures)
    with pytest.MonkeyPatch.context() as patch, trio.fail_after(PATIENCE):
        if carrier == "plain":
            patch.setattr(_readiness, "HAS_EPOLL", False)
        try:
            async with (
                open_connections(
                    protocol,
                    ids=itertools.count(1),
                    max_conn=max_conn,
                    pacer=pacer or Pacer(),
                    stopping=stopping,
                ) as connections,
                connections.handling(stopping),
            ):
                yield Net(carrier, connections, stopping, clients)
                stopping.request()
        finally:
            connection_logger.removeHandler(failures)
            for client in clients:
                await trio.aclose_forcefully(client)
            if failures.raised and not may_fail:
                raise failures.raised[0]


class _Failures(logging.Handler):
    """Keeps the exceptions that are logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.raised: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.raised.append(record.exc_info[1])


async def receive_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    """Receive ``size`` bytes, or fewer if the stream ends before."""
    data = b""
    while len(data) < size:
        chunk = await stream.receive_some(size - len(data))
        if not chunk:
            break
        data += chunk
    return data


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Receive until the other end sends no more."""
    return b"".join([bytes(chunk) async for chunk in stream])


class Seen:
    """What has happened so far, in order; tests wait for the next thing."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self._changed = trio.Event()

    def add(self, event: object) -> None:
        self.events.append(event)
        self._changed.set()

    async def wait(self, event: object) -> None:
        while event not in self.events:
            if self._changed.is_set():
                self._changed = trio.Event()
            await self._changed.wait()

    def __iter__(self) -> Iterator[object]:
        return iter(self.events)

    # Callbacks that do no more than this. They never wait, since that would change what is tested.

    async def on_connect(self, stream: Connection) -> None:  # noqa: ASYNC124
        self.add("open")

    async def on_receive(self, stream: Connection, frame: bytes) -> None:  # noqa: ASYNC124
        self.add(frame)

    async def on_close(self, stream: Connection) -> None:  # noqa: ASYNC124
        self.add(stream.close_reason)


def logged(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    """The lines of ``trioserver`` loggers from ``level`` up."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("trioserver") and record.levelno >= level
    ]
