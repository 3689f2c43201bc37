"""What a connection has still to send: whole calls, in order, and never more than callers wait for.

In the plain case nothing is here: the kernel takes it all at once. What it does not take is written
by a Trio task that lives as long as there is something to write. It belongs to the server and not
to a caller, so a caller who is cancelled leaves no half of a message behind.

Replies to frames that arrived together leave together, in one system call: a callback's replies are
joined here while its next frame is at hand, and written with the last of them, or before the
callback waits for anything (`write_before_waiting`).
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio
from trio.lowlevel import current_task

from trioserver._cancelling import TELLS_STATUS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from trio.lowlevel import Task

    from trioserver._net._transport import Transport


HIGH_WATER: Final = 64 * 1024
"""Bytes of replies that are joined before they are written."""
LEAST_ROOM: Final = 64
"""Bytes that a reply takes at least of what is joined without a yield: they have to end in time."""


class Run(Protocol):
    """Calls a function."""

    def __call__(self, fn: Callable[[Any], object], value: object, /) -> object: ...


def plainly(fn: Callable[[Any], object], value: object) -> object:
    """The simplest `Run`."""
    return fn(value)


NO_TRAP: Final = object()


class Piece:
    """What one call had left to send."""

    __slots__ = ("data", "done", "is_begun", "is_written")

    def __init__(self, data: memoryview, *, is_begun: bool) -> None:
        self.data = data
        self.done = trio.Event()
        self.is_begun = is_begun
        self.is_written = False


class Outbox:
    """Sends in order.

    Args:
      transport: Where to.
      nursery: Where the task that writes lives.
      on_broken: Called when a write finds that the peer takes nothing any more.
    """

    __slots__ = (
        "_emptied",
        "_error",
        "_is_closed",
        "_is_writing",
        "_nursery",
        "_on_broken",
        "_pieces",
        "_transport",
        "has_processor",
        "joined",
        "joiner",
        "room",
    )

    def __init__(
        self, transport: Transport, nursery: trio.Nursery, on_broken: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._nursery = nursery
        self._on_broken = on_broken
        self._pieces: list[Piece] = []
        self._error: str | None = None
        self._is_writing = False
        self._is_closed = False
        # Made when someone waits for it.
        self._emptied: trio.Event | None = None
        self.joined: list[bytes] = []
        self.room = 0
        """Bytes that may join those now, whatever else is to be known; none if there are none."""
        self.joiner: Task
        """Whose callbacks they are of; set while there is room, since to ask Trio costs a call."""
        # Whether the callbacks' coroutine is running, so that whoever sends is part of it.
        self.has_processor = False

    @property
    def is_broken(self) -> bool:
        """Whether the peer takes nothing any more."""
        return self._error is not None

    def join(self, data: bytes) -> bool:
        """Keep ``data`` for `write_before_waiting`; False if it had better be sent."""
        size = sum(map(len, self.joined)) + len(data)
        if not self.has_processor or self._pieces or size > HIGH_WATER or self._error is not None:
            return False
        self.joined.append(data)
        self.room = HIGH_WATER - size if TELLS_STATUS else 0
        self.joiner = current_task()
        return True

    def put(self, data: bytes) -> Piece | None:
        """Send ``data`` after what is here; what is left to `wait_written` for, if anything is."""
        if self.joined:
            joined = self._take_joined()
            piece = self._put(joined + data, len(joined))
        else:
            piece = self._put(data)
        if self._error is not None:
            raise trio.BrokenResourceError(self._error)
        return piece

    async def wait_written(self, piece: Piece) -> None:
        """Until the kernel has all of it.

        Cancelled or closed before its first byte was written, nothing of it is sent; after that,
        all of it.
        """
        try:
            await piece.done.wait()
        except trio.Cancelled:
            if not piece.is_begun and piece in self._pieces:
                self._pieces.remove(piece)
                piece.done.set()
                self._tell_if_empty()
            raise
        if self._error is not None:
            raise trio.BrokenResourceError(self._error)
        if not piece.is_written:
            raise trio.ClosedResourceError("this connection was closed while it was sending")

    def flush(self) -> None:
        """Write what is joined; never waits and never raises, since Trio's traps wait behind it."""
        if self.joined:
            joined = self._take_joined()
            self._put(joined, len(joined))

    def close(self) -> None:
        """Have callers wait no more; what they have begun to send still leaves."""
        self._is_closed = True
        for piece in tuple(self._pieces):
            piece.done.set()
            if not piece.is_begun:
                self._pieces.remove(piece)
        self._tell_if_empty()

    async def wait_sent(self) -> None:
        """Until all that callers have sent is written, or cannot be, or `close` ends the wait."""
        while self._pieces and not self._is_closed:
            await self._pieces[-1].done.wait()

    async def wait_empty(self) -> None:
        """Until all is written, or cannot be."""
        while self._pieces:
            if self._emptied is None:
                self._emptied = trio.Event()
            await self._emptied.wait()

    def fail(self, error: str) -> None:
        """Nothing more can be sent: drop what is here and tell those who wait; the reason stays."""
        if self._error is not None:
            return
        self._error = error
        for piece in self._pieces:
            piece.done.set()
        self._pieces.clear()
        self._take_joined()
        self._tell_if_empty()

    @types.coroutine
    def write_before_waiting(
        self, callbacks: Coroutine[Any, Any, None], run: Run = plainly, trap: object = NO_TRAP
    ) -> Generator[Any, Any, None]:
        """Await ``callbacks``, and `flush` before each time that it waits.

        It passes Trio's traps on as they are. Nothing may go wrong between a trap and its
        ``yield``: the trap has parked this Trio task already, and only Trio can wake it.

        Args:
          callbacks: What sends.
          run: Calls each of its steps.
          trap: What its first step has come to, if that was made elsewhere.
        """
        resume: Callable[[Any], object] = callbacks.send
        value: object = None
        while True:
            if trap is NO_TRAP:
                self.has_processor = True
                try:
                    trap = run(resume, value)
                except StopIteration:
                    return
                finally:
                    self.has_processor = False
            self.flush()
            try:
                value = yield trap
                resume = callbacks.send
            except BaseException as exc:  # noqa: BLE001, ASYNC103  # it belongs to `callbacks`
                value = exc
                resume = callbacks.throw
            trap = NO_TRAP

    def _take_joined(self) -> bytes:
        data = b"".join(self.joined)
        self.joined.clear()
        self.room = 0
        return data

    def _put(self, data: bytes, joined_size: int = 0) -> Piece | None:
        """Send ``data`` as far as that is possible now; what waits for the rest.

        Its first ``joined_size`` bytes are of calls that have returned, so they count as begun.
        """
        sent = 0
        if not self._pieces:
            if self._error is not None:
                return None
            try:
                sent = self._transport.try_send(data)
            except trio.BrokenResourceError as exc:
                self._break(exc)
                return None
            if sent == len(data):
                return None
        if not self._is_writing:
            self._is_writing = True
            self._nursery.start_soon(self._write, name="trioserver connection writer")
        rest = memoryview(data)
        if sent < joined_size:
            self._pieces.append(Piece(rest[sent:joined_size], is_begun=True))
            sent = joined_size
            if sent == len(data):
                return None
        piece = Piece(rest[sent:], is_begun=sent > joined_size)
        self._pieces.append(piece)
        return piece

    async def _write(self) -> None:
        try:
            while self._pieces:
                # Not one byte can leave before that, so until then its call can be cancelled.
                await self._transport.wait_writable()
                if not self._pieces:
                    return
                piece = self._pieces[0]
                piece.is_begun = True
                await self._transport.send_all(piece.data)
                # It may be gone: the outbox can fail meanwhile.
                if self._pieces and self._pieces[0] is piece:
                    self._pieces.pop(0)
                piece.is_written = True
                piece.done.set()
                self._tell_if_empty()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self._break(exc)
        finally:
            self._is_writing = False

    def _tell_if_empty(self) -> None:
        if not self._pieces and self._emptied is not None:
            self._emptied.set()
            self._emptied = None

    def _break(self, exc: Exception) -> None:
        self.fail(str(exc))
        self._on_broken()
