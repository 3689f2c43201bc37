r"""Framing: how a stream of bytes is cut into frames. No I/O, and no import of trio.

A framing is a value that says how (`EofFraming(b"\r\n")`); it encodes, and makes a decoder for each
connection. A decoder pulls:

- ``receive_data`` only buffers, and ``next_frame`` only decodes. The caller sets the pace: who
  fetches until None before reading on never buffers more than one frame and one chunk;
- ``next_frame`` returns a frame, or None ("I need more"), or raises `FramingError`, which is final;
- frames that are whole come out before the error of what follows them;
- work is linear in the bytes, however they were cut into chunks;
- a limit is exact: a frame of ``max_length`` bytes passes and one byte more does not. It is
  enforced as soon as it is known, never by waiting for the rest of the frame.
"""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

import attrs

from trioserver._errors import FrameTooLargeError
from trioserver._net._framing_buffer import BufferedDecoder, check_whole_number
from trioserver._net._framing_length import LengthFraming

__all__ = [
    "Decoder",
    "EofFraming",
    "FixedFraming",
    "Framing",
    "LengthFraming",
    "RawFraming",
]


class Decoder(Protocol):
    """Cuts what one peer sends into frames."""

    def receive_data(self, data: bytes, /) -> None:
        """Buffer what arrived, any number of bytes; after an error, drop it.

        Fetch with `next_frame` until None between two calls: otherwise the buffer grows.
        """

    def next_frame(self) -> bytes | None:
        """Return the next frame, None if more bytes are needed for one.

        Raises:
          FramingError: if the peer broke the framing; from then on every call raises an equal one.
          FrameTooLargeError: if the next frame is longer than the limit.
        """

    def receive_eof(self) -> None:
        """Check that the data may end here. Call it when `next_frame` has returned None.

        Raises:
          IncompleteFrameError: if a part of a frame is buffered.
          FramingError: the one that `next_frame` raised, if it did.
        """


@runtime_checkable
class Framing(Protocol):
    """How frames stand in a stream of bytes: what a framing of your own has to have."""

    def encode(self, payload: bytes, /) -> bytes:
        """Return the bytes to send for one frame.

        Raises:
          ValueError: if a peer could not decode them to ``payload`` again.
        """

    def decoder(self, max_length: int, /) -> Decoder:
        """Return a new decoder for one connection.

        Args:
          max_length: The most bytes that a frame may have, as ``next_frame`` returns it.

        Raises:
          ValueError: if no frame could keep to ``max_length``.
        """


@attrs.frozen
class RawFraming:
    """No framing: what arrives is handed on as it arrives, never empty.

    A chunk longer than ``max_length`` comes in pieces, since here nothing says where a frame ends.
    """

    def encode(self, payload: bytes) -> bytes:
        """Return ``payload`` as it is."""
        return payload

    def decoder(self, max_length: int) -> Decoder:
        """Return a decoder whose frames are what was received, up to ``max_length`` bytes each."""
        return _RawDecoder(max_length)


@attrs.frozen
class EofFraming:
    r"""Frames end with a terminator, which is not part of them.

    Args:
      terminator: One or more bytes, such as ``b"\r\n"``.
    """

    terminator: bytes = attrs.field()

    @terminator.validator
    def _check_terminator(self, _attribute: object, value: object) -> None:
        if not isinstance(value, bytes):
            raise TypeError(f"terminator must be bytes not {value!r}")
        if not value:
            raise ValueError(f"terminator must not be empty: {value!r}")

    def encode(self, payload: bytes) -> bytes:
        r"""Return ``payload`` and the terminator.

        Raises:
          ValueError: if the terminator would be found before the end of the payload. It need not
            be inside as a whole: ``b"a\n"`` before a terminator ``b"\n\n"`` ends after the ``a``.
        """
        encoded = payload + self.terminator
        place = encoded.find(self.terminator)
        if place != len(payload):
            raise ValueError(
                f"terminator {self.terminator!r} begins inside the payload, at byte {place}"
            )
        return encoded

    def decoder(self, max_length: int) -> Decoder:
        """Return a decoder; ``max_length`` does not count the terminator."""
        return _EofDecoder(self.terminator, max_length)


@attrs.frozen
class FixedFraming:
    """Every frame has the same number of bytes.

    Args:
      size: Bytes of each frame, at least 1.
    """

    size: int = attrs.field()

    @size.validator
    def _check_size(self, _attribute: object, value: object) -> None:
        check_whole_number("size", value, 1)

    def encode(self, payload: bytes) -> bytes:
        """Return ``payload`` as it is.

        Raises:
          ValueError: if it has not ``size`` bytes.
        """
        if len(payload) != self.size:
            raise ValueError(f"payload must have {self.size} bytes, not {len(payload)}")
        return payload

    def decoder(self, max_length: int) -> Decoder:
        """Return a decoder.

        Raises:
          ValueError: if ``size`` is above ``max_length``.
        """
        return _FixedDecoder(self.size, max_length)


class _RawDecoder:
    __slots__ = ("_chunks", "_max_length", "_start")

    def __init__(self, max_length: int) -> None:
        check_whole_number("max_length", max_length, 1)
        self._max_length = max_length
        # At most one, if it is fetched as `Decoder` says.
        self._chunks: list[bytes] = []
        self._start = 0  # in the first chunk

    def receive_data(self, data: bytes | bytearray) -> None:
        if data:
            self._chunks.append(bytes(data))

    def next_frame(self) -> bytes | None:
        if not self._chunks:
            return None
        chunk = self._chunks[0]
        start, end = self._start, self._start + self._max_length
        if end < len(chunk):
            self._start = end
        else:
            del self._chunks[0]
            self._start = 0
        return chunk[start:end]

    def receive_eof(self) -> None:
        """Bytes without frames may end anywhere."""


_WINDOW: Final = 4096
"""Bytes that are split at once, which is cheaper than to search for the end of each short frame."""


class _EofDecoder(BufferedDecoder):
    __slots__ = ("_frames", "_searched", "_terminator", "_terminator_size", "_window")

    def __init__(self, terminator: bytes, max_length: int) -> None:
        super().__init__(max_length)
        self._terminator = terminator
        self._terminator_size = len(terminator)
        # How many bytes after _start are known to begin no terminator: each is looked at once.
        self._searched = 0
        # Frames that are out already, the next one last; what splits a window makes the list.
        self._frames: list[bytes] | None = None
        # No frame in a window can be too large.
        self._window = min(_WINDOW, max_length)

    def next_frame(self) -> bytes | None:
        if self._frames:
            return self._frames.pop()
        if self._failure is not None:
            raise self._failure()
        if not self._buffer:
            return None
        start = self._start
        end = self._buffer.find(self._terminator, start + self._searched)
        if end < 0:
            self._check_partial_frame()
            self._release()
            return None
        if end - start > self._max_length:
            raise self._fail(FrameTooLargeError, end - start, self._max_length)
        frame = self._cut(start, end)
        self._start = end + self._terminator_size
        self._searched = 0
        if self._start == len(self._buffer):
            self._buffer, self._start = b"", 0
        else:
            self._split_window()
            self._release()
        return frame

    def _split_window(self) -> None:
        window = self._cut(self._start, self._start + self._window)
        frames = window.split(self._terminator)
        rest = frames.pop()
        if frames:
            frames.reverse()
            self._frames = frames
            self._start += len(window) - len(rest)

    def _check_partial_frame(self) -> None:
        received = len(self._buffer) - self._start
        self._searched = max(0, received - len(self._terminator) + 1)
        if received > self._max_length:
            size = self._earliest_end(received)
            if size > self._max_length:
                raise self._fail(FrameTooLargeError, size, self._max_length)

    def _earliest_end(self, received: int) -> int:
        """How long the frame is at least: its last bytes may be the beginning of the terminator."""
        tail = self._cut(self._start + self._searched, self._start + received)
        for skipped in range(len(tail)):
            if self._terminator.startswith(tail[skipped:]):
                return self._searched + skipped
        return received

    def _expected(self) -> None:
        return None


class _FixedDecoder(BufferedDecoder):
    __slots__ = ("_size",)

    def __init__(self, size: int, max_length: int) -> None:
        super().__init__(max_length)
        if size > max_length:
            raise ValueError(f"size {size} exceeds max_length {max_length}")
        self._size = size

    def next_frame(self) -> bytes | None:
        end = self._start + self._size
        if end > len(self._buffer):
            self._release()
            return None
        frame = self._cut(self._start, end)
        self._start = end
        return frame

    def _expected(self) -> int:
        return self._size
