"""What a connection has still to send: whole calls, in order, and never more than callers wait for.

In the plain case nothing is here: the kernel takes it all at once. What it does not take is written
by a Trio task that lives as long as there is something to write. It belongs to the server and not
to a caller, so a caller who is cancelled leaves no half of a message behind.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trioserver._net._transport import Transport


class _Piece:
    """What one call had left to send."""

    __slots__ = ("data", "done", "is_begun")

    def __init__(self, data: memoryview, *, is_begun: bool) -> None:
        self.data = data
        self.done = trio.Event()
        self.is_begun = is_begun


class Outbox:
    """Sends in order.

    Args:
      transport: Where to.
      nursery: Where the task that writes lives.
    """

    __slots__ = ("_error", "_is_writing", "_nursery", "_pieces", "_transport")

    def __init__(self, transport: Transport, nursery: trio.Nursery) -> None:
        self._transport = transport
        self._nursery = nursery
        self._pieces: deque[_Piece] = deque()
        self._error: str | None = None
        self._is_writing = False

    @property
    def is_backed_up(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._pieces)

    @property
    def is_broken(self) -> bool:
        """Whether the peer takes nothing any more."""
        return self._error is not None

    def check(self) -> None:
        """Raise `trio.BrokenResourceError` if the peer takes nothing any more."""
        if self._error is not None:
            raise trio.BrokenResourceError(self._error)

    async def send_all(self, data: bytes) -> None:
        """Send ``data`` after what is here, and wait until the kernel has it all.

        Cancelled before its first byte was written, nothing of it is sent; after that, all of it.
        """
        piece = self._put(data)
        self.check()
        if piece is None:
            return
        try:
            await piece.done.wait()
        except trio.Cancelled:
            if not piece.is_begun and piece in self._pieces:
                self._pieces.remove(piece)
                piece.done.set()
            raise
        self.check()

    def post(self, data: bytes) -> None:
        """Send ``data`` after what is here; never raises and never waits."""
        self._put(data)

    async def wait_empty(self) -> None:
        """Until all is written, or cannot be."""
        while self._pieces:
            await self._pieces[-1].done.wait()

    def fail(self, error: str) -> None:
        """The peer takes nothing any more: drop what is here and tell those who wait."""
        self._error = error
        for piece in self._pieces:
            piece.done.set()
        self._pieces.clear()

    def _put(self, data: bytes) -> _Piece | None:
        sent = 0
        if not self._pieces:
            if self._error is not None:
                return None
            try:
                sent = self._transport.try_send(data)
            except trio.BrokenResourceError as exc:
                self.fail(str(exc))
                return None
            if sent == len(data):
                return None
        if not self._is_writing:
            self._is_writing = True
            self._nursery.start_soon(self._write, name="trioserver connection writer")
        piece = _Piece(memoryview(data)[sent:], is_begun=sent > 0)
        self._pieces.append(piece)
        return piece

    async def _write(self) -> None:
        try:
            while self._pieces:
                piece = self._pieces[0]
                piece.is_begun = True
                await self._transport.send_all(piece.data)
                # It may be gone: the outbox can fail meanwhile.
                if self._pieces and self._pieces[0] is piece:
                    self._pieces.popleft()
                piece.done.set()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self.fail(str(exc))
        finally:
            self._is_writing = False
