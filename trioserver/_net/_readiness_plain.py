"""Where there is no epoll: Trio is asked for each wait. See `_readiness` for what has to hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from trioserver._net._readiness import Watch


class TrioReadiness:
    """Watches sockets by Trio's own waits; the same rules with more system calls."""

    def watch(self, sock: socket.socket, on_reset: Callable[[], None]) -> Watch:  # noqa: ARG002  # the system does not tell
        """See `Readiness.watch`."""
        return _TrioWatch(sock)


class _TrioWatch:
    """One socket, watched only while someone waits."""

    __slots__ = ("_sock", "_waiting", "enlisted", "is_hung_up", "is_readable", "is_writable")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._waiting: trio.CancelScope | None = None
        self.enlisted: object = None
        self.is_readable = True
        self.is_writable = True
        self.is_hung_up = False

    async def wait_readable(self) -> None:
        if self.is_readable:
            return
        if self._waiting is not None:
            raise trio.BusyResourceError("another task is receiving on this connection")
        try:
            with trio.CancelScope() as self._waiting:
                await trio.lowlevel.wait_readable(self._sock)
        finally:
            self._waiting = None
        self.is_readable = True

    async def wait_writable(self) -> None:
        if not self.is_writable:
            await trio.lowlevel.wait_writable(self._sock)
            self.is_writable = True

    def interrupt(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._sock)
