"""The seam between a connection and what carries its bytes: a socket, or any stream of Trio's."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioserver._net._readiness import EpollReadiness, Readiness, Watch

_LINGER: Final = 0.5
"""Seconds in which a peer that is still sending may take our last bytes before we close."""
_DISCARD_SIZE: Final = 64 * 1024


class ReadingStopped(Exception):  # a signal between this room's modules
    """`Transport.stop_reading` was called."""


class Transport(Protocol):
    """Carries the bytes of one connection."""

    @property
    def peername(self) -> object:
        """Who is at the other end, as the socket module has it; empty text if nobody can say."""

    async def receive_some(self, max_bytes: int) -> bytes:
        """Receive at least one byte; nothing at the end of what the peer sends.

        Raises:
          trio.BrokenResourceError: if the peer has reset the connection.
          ReadingStopped: after `stop_reading`.
        """

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        """As `receive_some`, but None where that would wait, or only that can tell."""

    def stop_reading(self) -> None:
        """Have `receive_some` wait no more; it may return once more what has come by then.

        Not twice, since a peer that goes on sending would keep it going.
        """

    def try_send(self, data: bytes | memoryview) -> int:
        """Send what can be sent without waiting; how many bytes that were.

        Raises:
          trio.BrokenResourceError: if the peer has reset the connection.
        """

    async def wait_writable(self) -> None:
        """Until `send_all` can send something; raises as `try_send` does."""

    async def send_all(self, data: memoryview) -> None:
        """Send it all, waiting as long as the peer takes nothing; raises as `try_send` does."""

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""

    async def aclose(self) -> None:
        """Close, so that what was sent arrives; when cancelled, at once."""


class SocketTransport:
    """A connected, non-blocking socket."""

    __slots__ = ("_at_eof", "_has_last_read", "_is_stopped", "_sock", "_watch", "peername")

    def __init__(
        self, sock: socket.socket, readiness: Readiness, on_reset: Callable[[], None]
    ) -> None:
        self._sock = sock
        self._watch: Watch = readiness.watch(sock, on_reset)
        self._is_stopped = False
        self._has_last_read = True
        self._at_eof = False
        self.peername = _peername(sock)

    async def receive_some(self, max_bytes: int) -> bytes:
        while (data := self.receive_nowait(max_bytes)) is None:
            await self._watch.wait_readable()
        return data

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        watch = self._watch
        if self._is_stopped:
            if not self._has_last_read:
                raise ReadingStopped
            self._has_last_read = False
        elif not watch.is_readable:
            return None
        watch.is_readable = False
        try:
            data = self._sock.recv(max_bytes)
        except BlockingIOError:
            if self._is_stopped:
                raise ReadingStopped from None
            return None
        except OSError as exc:
            raise trio.BrokenResourceError("the connection was reset") from exc
        if len(data) == max_bytes or watch.is_hung_up:
            watch.is_readable = True
        if not data:
            self._at_eof = True
        return data

    def enlist(self, readiness: EpollReadiness, item: object) -> None:
        """Append ``item`` to ``readiness.ready`` as soon as `receive_nowait` may find something."""
        if self._is_stopped or self._watch.is_readable:
            readiness.append(item)
        else:
            self._watch.enlisted = item

    def stop_reading(self) -> None:
        self._is_stopped = True
        self._watch.interrupt()

    def try_send(self, data: bytes | memoryview) -> int:
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            raise trio.BrokenResourceError("the connection was reset") from exc
        if sent < len(data):
            self._watch.is_writable = False
        return sent

    async def wait_writable(self) -> None:
        await self._watch.wait_writable()

    async def send_all(self, data: memoryview) -> None:
        while data:
            await self._watch.wait_writable()
            data = data[self.try_send(data) :]

    async def send_eof(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # it is gone, and so is what this would have said

    async def aclose(self) -> None:
        try:
            with trio.move_on_after(_LINGER):
                await self._linger()
        finally:
            self._watch.close()
            self._sock.close()

    async def _linger(self) -> None:
        """Let a peer that goes on sending take our last bytes.

        To close a socket with unread input resets the connection, and a reset may overtake what
        was sent before it.
        """
        is_unread = False
        while not self._at_eof:
            self._watch.is_readable = False
            try:
                if not self._sock.recv(_DISCARD_SIZE):
                    return
            except BlockingIOError:
                if not is_unread:
                    return
                await self._watch.wait_readable()
            except OSError:  # nobody is there
                return
            else:
                if not is_unread:
                    is_unread = True
                    await self.send_eof()
                await trio.lowlevel.checkpoint()


class StreamTransport:
    """Any stream of Trio's: in memory for tests, or with a protocol of its own below."""

    __slots__ = ("_is_stopped", "_stream", "_waiting", "peername")

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._waiting: trio.CancelScope | None = None
        self._is_stopped = False
        self.peername: object = ""

    async def receive_some(self, max_bytes: int) -> bytes:
        if self._is_stopped:
            raise ReadingStopped
        if self._waiting is not None:
            raise trio.BusyResourceError("another task is receiving on this connection")
        data = None
        try:
            with trio.CancelScope() as self._waiting:
                data = bytes(await self._stream.receive_some(max_bytes))
        finally:
            self._waiting = None
        if data is None:
            raise ReadingStopped
        return data

    def receive_nowait(self, max_bytes: int) -> bytes | None:  # noqa: ARG002  # only a wait can tell
        return None

    def stop_reading(self) -> None:
        self._is_stopped = True
        if self._waiting is not None:
            self._waiting.cancel()

    def try_send(self, data: bytes | memoryview) -> int:  # noqa: ARG002  # only the writer can tell
        return 0

    async def wait_writable(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_all(self, data: memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except trio.ClosedResourceError as exc:
            raise trio.BrokenResourceError from exc

    async def send_eof(self) -> None:
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _peername(sock: socket.socket) -> object:
    try:
        return sock.getpeername()
    except OSError:  # it has left already
        return ""
