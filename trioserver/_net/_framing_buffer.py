"""What the decoders share: the bytes that are not yet a frame, and the checks of numbers.

Rule 1: every byte is copied a bounded number of times, however it was cut into chunks. The comments
in `BufferedDecoder.receive_data` are the proof.

Rule 2: a failed decoder keeps no bytes and takes none, so that a hostile peer costs no memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING

from trioserver._errors import FramingError, IncompleteFrameError

if TYPE_CHECKING:
    from collections.abc import Callable


def check_whole_number(name: str, value: object, minimum: int) -> None:
    """Raise `TypeError` or `ValueError` unless ``value`` is an int of at least ``minimum``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int not {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be >= {minimum}: {value}")


class BufferedDecoder(ABC):
    """All of a decoder but how frames are found.

    The bytes from ``_start`` to the end of ``_buffer`` are those that no frame has used.
    """

    __slots__ = ("_buffer", "_failure", "_max_length", "_start")

    def __init__(self, max_length: int) -> None:
        check_whole_number("max_length", max_length, 1)
        self._max_length = max_length
        self._buffer: bytes | bytearray = b""
        self._start = 0
        # Not the exception itself: its traceback holds the frames that hold this decoder, a cycle
        # that would keep what a hostile peer sent until the next full garbage collection.
        self._failure: Callable[[], FramingError] | None = None

    def receive_data(self, data: bytes | bytearray) -> None:
        if self._failure is not None:
            return
        rest = len(self._buffer) - self._start
        if not rest:
            # Frames are cut straight out of the chunk. Streams may give a bytearray, which its
            # owner could change.
            self._buffer = data if type(data) is bytes else bytes(data)
            self._start = 0
        elif rest <= len(data):
            # The copy of the rest is paid for by the bytes that came.
            self._buffer = self._cut(self._start, self._start + rest) + data
            self._start = 0
        elif isinstance(self._buffer, bytearray):
            # Deleting in front moves a pointer, and appending is amortized.
            del self._buffer[: self._start]
            self._start = 0
            self._buffer += data
        else:
            # At most one such copy for each buffer that is bytes, so the two cases above, which
            # made that buffer, pay for it.
            self._buffer = bytearray(memoryview(self._buffer)[self._start :])
            self._start = 0
            self._buffer += data

    def receive_eof(self) -> None:
        if self._failure is not None:
            raise self._failure()
        received = len(self._buffer) - self._start
        if received:
            raise IncompleteFrameError(received, self._expected())

    @abstractmethod
    def next_frame(self) -> bytes | None: ...

    @abstractmethod
    def _expected(self) -> int | None:
        """Bytes that the frame which has begun will have, with all that surrounds it."""

    def _cut(self, start: int, end: int) -> bytes:
        buffer = self._buffer
        if isinstance(buffer, bytes):
            return buffer[start:end]
        return bytes(memoryview(buffer)[start:end])

    def _release(self) -> None:
        """Hold nothing when everything is used: an idle connection must not keep its last chunk."""
        if self._start == len(self._buffer):
            self._buffer = b""
            self._start = 0

    def _fail(self, kind: type[FramingError], *facts: object) -> FramingError:
        self._failure = partial(kind, *facts)
        self._buffer = b""
        self._start = 0
        return self._failure()
