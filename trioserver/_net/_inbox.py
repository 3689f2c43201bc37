"""What a connection receives: bytes from its transport, cut into frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from trioserver._errors import FramingError
from trioserver._net._transport import ReadingStopped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trioserver._net._framing import Decoder
    from trioserver._net._transport import Transport
    from trioserver._pacing import Pacer

READ_SIZE: Final = 64 * 1024
"""Bytes that one read asks for."""
FRAME_BUDGET: Final = 32
"""Frames that are handled before others have their turn.

A flooding client's polite neighbours, 50 with 100 requests/s each, waited 0.07 ms at their p99
without it, and beside it 0.09 ms with a budget of 16, 0.10 with 32, 0.14 with 64, while it was
served 0.8, 1.2 and 1.5 million frames a second; in an earlier design without any budget, 12 ms.
"""


class Inbox:
    """Receives from ``transport``; one Trio task at a time may.

    Args:
      transport: Where from.
      pacer: Hears of the turns that are given to others.
    """

    __slots__ = (
        "_budget",
        "_decoder",
        "_is_more_there",
        "_pacer",
        "_transport",
        "decode_next",
        "framing_error",
        "is_at_eof",
        "is_stopped",
        "is_waiting",
        "next_frame",
    )

    is_counted = False
    """Whether to `count_frame` for each frame that is taken past the methods here."""

    def __init__(self, transport: Transport, pacer: Pacer) -> None:
        self._transport = transport
        self._decoder: Decoder
        self.decode_next: Callable[[], bytes | None]
        """`Decoder.next_frame`."""
        self._pacer = pacer
        self._budget = FRAME_BUDGET
        # Whether the last read took all that it asked for.
        self._is_more_there = False
        # The frame after the one that is being handled, if it has come whole.
        self.next_frame: bytes | None = None
        # Why there are no more frames: the client broke the framing, sends no more, or has to wait
        # for a server that reads no more.
        self.framing_error: FramingError | None = None
        self.is_at_eof = False
        self.is_stopped = False
        # Whether someone waits for a frame.
        self.is_waiting = False

    def use(self, decoder: Decoder) -> None:
        """Have ``decoder`` cut the frames; before the first is asked for."""
        self._decoder = decoder
        self.decode_next = decoder.next_frame

    def take_frame(self) -> bytes | None:
        """The next frame if it is here already, and it is not the turn of others."""
        frame = self.next_frame
        if frame is None or self._budget <= 1:
            return None
        self._budget -= 1
        self.next_frame = self._decode()
        return frame

    async def receive_frame(self) -> bytes:
        """The next frame; raises as `Connection.receive_frame` says."""
        self._budget -= 1
        if self._budget <= 0:
            self._budget = FRAME_BUDGET
            await self._pacer.give_turn()
        # In one coroutine down to the transport: every idle connection waits here.
        frame = self.next_frame
        while frame is None:
            if self.framing_error is not None:
                raise self.framing_error
            if self.is_at_eof or self.is_stopped:
                raise trio.EndOfChannel
            if self._is_more_there:
                # A large frame must not take the turns of others.
                self._is_more_there = False
                await self._pacer.checkpoint()
            self.is_waiting = True
            try:
                data = await self._transport.receive_some(READ_SIZE)
            except ReadingStopped:
                self.is_stopped = True
                continue
            finally:
                self.is_waiting = False
            # No checkpoint before the frames are out: cancelled there, they would be lost.
            self._is_more_there = len(data) == READ_SIZE
            frame = self._decode_more(data)
        self.next_frame = self._decode()
        return frame

    def receive_frame_nowait(self) -> bytes | None:
        """The next frame if it is here or one read brings it; not after the last (`is_over`).

        The budget is the caller's.

        Raises:
          trio.BrokenResourceError: if the client has reset the connection.
        """
        frame = self.next_frame
        if frame is None:
            try:
                data = self._transport.receive_nowait(READ_SIZE)
            except ReadingStopped:
                self.is_stopped = True
                return None
            if data is None:
                return None
            frame = self._decode_more(data)
            if frame is None:
                return None
        # Not by `_decode`: no error has come yet, and calls are half of the time of a short frame.
        try:
            self.next_frame = self.decode_next()
        except FramingError as exc:
            self.broke_off(exc)
        return frame

    def broke_off(self, error: FramingError) -> None:
        """The client has broken the framing behind the frame that is being handled."""
        self.next_frame = None
        self.framing_error = error

    def count_frame(self) -> None:
        """One more is handled; to be called where it `is_counted`."""

    @property
    def is_over(self) -> bool:
        """Whether `next_frame` is the last one, or there is none any more."""
        return self.is_at_eof or self.is_stopped or self.framing_error is not None

    async def receive_some(self, max_bytes: int) -> bytes:
        """Bytes past the decoder; none at the end, or if reading was stopped."""
        try:
            data = await self._transport.receive_some(max_bytes)
        except ReadingStopped:
            self.is_stopped = True
            return b""
        if not data:
            self.is_at_eof = True
        return data

    def stop(self) -> None:
        """Read no more than has come by now; whole frames can still be received."""
        self._transport.stop_reading()

    def _decode_more(self, data: bytes) -> bytes | None:
        if data:
            self._decoder.receive_data(data)
            return self._decode()
        self.is_at_eof = True
        try:
            self._decoder.receive_eof()
        except FramingError as exc:
            self.framing_error = exc
        return None

    def _decode(self) -> bytes | None:
        """The next whole frame; an error waits until the frames before it are handled."""
        if self.framing_error is None:
            try:
                return self.decode_next()
            except FramingError as exc:
                self.framing_error = exc
        return None


class Frames:
    """Iterates over what ``receive_frame`` returns, until the peer sends no more."""

    def __init__(self, receive_frame: Callable[[], Awaitable[bytes]]) -> None:
        self._receive_frame = receive_frame

    def __aiter__(self) -> Frames:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._receive_frame()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
