"""The way out of this process through a socket that nobody may wait for."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

WORTH_A_COPY: Final = 4096
"""Bytes up to which joining costs less than a piece of its own."""
_MAX_PARTS: Final = 512
"""Pieces that one system call may take; systems allow 1024."""


class Sender:
    """Sends at once what the socket takes, and the rest in the background, in its order.

    Args:
      sock: Connected and non-blocking; its owner closes it, and notices its end by reading.
      nursery: Where what the socket has no room for is written.
    """

    def __init__(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        self._sock = sock
        self._nursery = nursery
        self._unsent: deque[memoryview] = deque()
        self.unsent = 0
        """Bytes that the socket had no room for so far."""
        self._changed = trio.Event()
        self._is_over = False
        self._is_broken = False

    def hang_up(self) -> None:
        """Say nothing more: the nursery ends, and nothing may be started there."""
        self._is_over = True

    def send(self, parts: Sequence[bytes]) -> None:
        """Send ``parts``, one after the other; never waits, and is silent about a dead peer."""
        if self._is_over or self._is_broken:
            return
        if len(parts) > 1 and max(map(len, parts)) < 2 * WORTH_A_COPY:
            parts = [b"".join(parts)]
        sent = 0
        if not self._unsent:
            try:
                # Large ones are not to be in memory twice.
                sent = (
                    self._sock.send(parts[0])
                    if len(parts) == 1
                    else self._sock.sendmsg(parts[:_MAX_PARTS])
                )
            except BlockingIOError:
                pass
            except OSError:
                self._is_broken = True  # which reading will tell
                return
        for part in parts:
            if sent >= len(part):
                sent -= len(part)
                continue
            if not self._unsent:
                self._nursery.start_soon(self._write_unsent)
            self._unsent.append(memoryview(part)[sent:])
            self.unsent += len(part) - sent
            sent = 0

    async def wait_sent(self) -> None:
        """Until the socket has taken everything, or is broken."""
        while self._unsent and not self._is_broken:
            await self._changed.wait()

    async def _write_unsent(self) -> None:
        while self._unsent and not self._is_broken:
            await trio.lowlevel.wait_writable(self._sock)
            self._write()
        self._changed.set()
        self._changed = trio.Event()

    def _write(self) -> None:
        try:
            sent = self._sock.send(self._unsent[0])
        except BlockingIOError:
            return
        except OSError:  # the peer is dying; what is unsent stays so
            self._is_broken = True
            return
        self.unsent -= sent
        rest = self._unsent[0][sent:]
        if rest:
            self._unsent[0] = rest
        else:
            self._unsent.popleft()
