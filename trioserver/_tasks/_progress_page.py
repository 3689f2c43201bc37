"""Progress in shared memory: of each running task the newest value, written without a system call.

It lies behind the first part of the flight recorder (see `_recorder`), a slot for each task that a
worker can hold. Its rules:

1. A slot is a seqlock: its version is odd while the worker writes it. Who reads an odd version, or
   finds that it has changed under its hands, leaves the slot alone: the worker has not told of that
   value yet. Versions are never used twice on a page, in whichever slot.
2. The worker writes a value, then the count of all values, then reads *heard*; the dispatcher reads
   the count, writes it as *heard*, then reads the values. With a fence between the two on either
   side, at least one sees the other.
3. So the worker rings a doorbell, which is a message, only where *heard* has reached the count of
   the last one that it rang: else that one is still to be heard, and whoever hears it will see this
   value too. However fast values come, there is one doorbell on its way at the most.
4. A doorbell may be left out where the socket is full, because the dispatcher looks at the page
   whenever it has read anything.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable  # noqa: TC003  # cheap, and needed to read signatures
from typing import Final

# A worker never holds more tasks than this, and of those that it holds no two have the same place.
MAX_HANDED: Final = 256
RECORD_SIZE: Final = 64 * 1024
"""Bytes of the page before the slots."""
SLOT_SIZE: Final = 64 * 1024
PAGE_SIZE: Final = RECORD_SIZE + MAX_HANDED * SLOT_SIZE
"""Most of it is never touched, and takes no memory then."""

# Among the first words of the page: how many values the worker has written, and which count the
# dispatcher has heard of.
COUNT: Final = 2
HEARD: Final = 3
# Words of a slot.
_VERSION, _SEQ, _SIZE = range(3)
_HEADER: Final = 24
PROGRESS_SIZE: Final = SLOT_SIZE - _HEADER
"""Bytes of a pickled value at the most."""


class PageError(Exception):
    """The page makes no sense: the worker has overwritten it."""


def make_fence() -> Callable[[], None]:
    """A function that orders the loads and stores before it against those after it."""
    lock = threading.Lock()  # taken and given back with nobody else about, it does just that
    acquire, release = lock.acquire, lock.release

    def fence() -> None:
        acquire()
        release()

    return fence


class ProgressWriter:
    """The worker's hand; one thread at a time."""

    def __init__(self, view: memoryview, words: memoryview, fence: Callable[[], None]) -> None:
        self._view = view
        self._words = words
        self._fence = fence
        # It reads back nothing but *heard*: a task may have scribbled on the page.
        self._count = 0
        self._rung = 0

    def write(self, seq: int, body: bytes) -> bool:
        """Make ``body`` the newest value of task ``seq``; True if a doorbell must be rung."""
        words = self._words
        start = RECORD_SIZE + seq % MAX_HANDED * SLOT_SIZE
        at = start // 8
        self._count += 1
        words[at + _VERSION] = 2 * self._count - 1
        self._fence()
        words[at + _SEQ] = seq
        words[at + _SIZE] = len(body)
        self._view[start + _HEADER : start + _HEADER + len(body)] = body
        self._fence()
        words[at + _VERSION] = 2 * self._count
        words[COUNT] = self._count
        self._fence()
        if words[HEARD] < self._rung:
            return False
        self._rung = self._count
        return True


class ProgressReader:
    """The dispatcher's hand."""

    def __init__(self, view: memoryview, words: memoryview, fence: Callable[[], None]) -> None:
        self._view = view
        self._words = words
        self._fence = fence
        self._count = 0
        self._versions = [0] * MAX_HANDED

    def read(self, seqs: Iterable[int]) -> list[tuple[int, bytes]]:
        """The values of tasks ``seqs`` that are new since the last call; see `Page.progressed`."""
        count = self._words[COUNT]
        if count == self._count:
            return []
        self._count = self._words[HEARD] = count
        self._fence()
        values = []
        for seq in seqs:
            body = self._value_of(seq)
            if body is not None:
                values.append((seq, body))
        return values

    def _value_of(self, seq: int) -> bytes | None:
        words = self._words
        place = seq % MAX_HANDED
        start = RECORD_SIZE + place * SLOT_SIZE
        at = start // 8
        version = words[at + _VERSION]
        if version % 2 or version == self._versions[place]:
            return None
        self._fence()
        is_its_own = words[at + _SEQ] == seq
        size = words[at + _SIZE]
        body = bytes(self._view[start + _HEADER : start + _HEADER + min(size, PROGRESS_SIZE)])
        self._fence()
        if words[at + _VERSION] != version or not is_its_own:
            return None
        if size > PROGRESS_SIZE:
            raise PageError
        self._versions[place] = version
        return body
