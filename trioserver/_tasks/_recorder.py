"""The flight recorder: one page of shared memory a worker, written without a system call.

It answers, also after the worker was killed, what no message can: which tasks the worker has begun,
and which results it has finished but not sent. The progress of tasks lies behind that, with rules
of its own (`_progress_page`). The rules here:

1. *Begun* is written before a task runs, and the bytes of a result before the count that publishes
   them. Tasks begin in the order of their numbers, so the last one tells of all; the time at which
   each began has a place of its own, since several may run. A place is used again when its task has
   ended: numbers rise, but whoever gives them leaves out those whose place is taken.
2. A task that was handed over is taken back by writing *revoked*, then reading *begun*; the worker
   writes *begun*, then reads *revoked*. With a fence between the two on either side, at least one
   sees the other. If the dispatcher sees *not begun*, the task is its own again and will never run
   there, be the worker busy, stopped or dead.
3. Published results are only ever appended to. To start over, the worker changes the generation,
   which shares a word with the count, so that no reader sees one without the other; a reader who
   finds that the generation changed under its hands has read nothing.
4. A page that makes no sense is refused as a whole (`PageError`).

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Callable, Iterable  # noqa: TC003  # cheap, and needed to read signatures
from typing import Any, Final

from trioserver._shared_memory import create_shared_memory
from trioserver._tasks._arena import ARENA_SIZE
from trioserver._tasks._progress_page import (
    MAX_HANDED,
    PAGE_SIZE,
    PROGRESS_SIZE,
    RECORD_SIZE,
    PageError,
    ProgressReader,
    ProgressWriter,
    make_fence,
)
from trioserver._tasks._wire import REPORT, Report, TaskStream

__all__ = [
    "MAX_HANDED",
    "PAGE_SIZE",
    "PROGRESS_SIZE",
    "RECORD_SIZE",
    "Page",
    "PageError",
    "Recorder",
    "create_page",
]

_MAGIC: Final = 0x7472696F73727632
# Words of eight bytes, because an aligned word is stored and loaded whole.
_MAGIC_WORD, _BEGUN = range(2)
_PUBLISHED: Final = 4  # the two before it are those of progress
# Of `_PUBLISHED`: bytes in the lower half, generation in the upper.
_GENERATION: Final = 1 << 32
_REVOKED: Final = 8
_BEGUN_AT: Final = _REVOKED + MAX_HANDED
_RESULTS: Final = (_BEGUN_AT + MAX_HANDED) * 8


def create_page() -> int:
    """A descriptor of fresh shared memory that no file name leads to, for `Recorder` and `Page`.

    Behind the page there is room for large bodies (see `_arena`).
    """
    return create_shared_memory("trioserver-task-worker", PAGE_SIZE + ARENA_SIZE)


class _Mapping:
    """One process's view of the page."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, PAGE_SIZE)
        self._view = memoryview(self._map)
        self._words = self._view.cast("Q")
        self._floats = self._view.cast("d")
        self._fence = make_fence()

    def close(self) -> None:
        """Unmap the page."""
        self._floats.release()
        self._words.release()
        self._view.release()
        self._map.close()


class Recorder(_Mapping):
    """The worker's hand: writes what it does.

    It reads back nothing but *revoked*: a task may have scribbled on the page.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._words[_MAGIC_WORD] = _MAGIC
        self._lock = threading.Lock()
        self._published = 0
        self._progress = ProgressWriter(self._view, self._words, self._fence)

    def begin(self, seq: int, now: float) -> bool:
        """Write that task ``seq`` begins; False if it was revoked and must not run."""
        place = seq % MAX_HANDED
        self._floats[_BEGUN_AT + place] = now
        self._words[_BEGUN] = seq
        with self._lock:  # a fence, without the call
            pass
        return self._words[_REVOKED + place] != seq

    def end(self, seq: int) -> None:
        """Write that task ``seq`` has ended: from now on nobody is to count its time."""
        self._floats[_BEGUN_AT + seq % MAX_HANDED] = math.inf

    def publish(self, record: bytes) -> bool:
        """Keep a finished report until `clear`; False if there is no room for it."""
        start = _RESULTS + self._published % _GENERATION
        end = start + len(record)
        if end > RECORD_SIZE:
            return False
        self._view[start:end] = record
        with self._lock:
            pass
        self._published += len(record)
        self._words[_PUBLISHED] = self._published
        return True

    def published(self) -> memoryview:
        """The reports published since the last `clear`, to be sent."""
        return self._view[_RESULTS : _RESULTS + self._published % _GENERATION]

    def clear(self) -> None:
        """Forget the published reports: they have been sent whole."""
        generation = self._published // _GENERATION + 1
        self._published = self._words[_PUBLISHED] = generation % _GENERATION * _GENERATION
        self._fence()

    def progress(self, seq: int, body: bytes) -> bool:
        """Make ``body`` the newest value of task ``seq``; one thread at a time.

        Returns:
          True if the dispatcher must be told to look at the page; False if it will anyway.
        """
        return self._progress.write(seq, body)


class Page(_Mapping):
    """The dispatcher's hand: reads what the worker did, and revokes what it has not begun."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._progress = ProgressReader(self._view, self._words, self._fence)

    def revoke(self, seq: int) -> bool:
        """Take back task ``seq``; False if it has begun, or may have."""
        self._words[_REVOKED + seq % MAX_HANDED] = seq
        self._fence()
        return self._words[_BEGUN] < seq and self._words[_MAGIC_WORD] == _MAGIC

    def begun(self) -> tuple[int, float]:
        """The last task that was begun, 0 for none, and when (CLOCK_MONOTONIC).

        Raises:
          PageError: if the worker has not opened the page, or its mark is gone.
        """
        if self._words[_MAGIC_WORD] != _MAGIC:
            raise PageError
        while True:
            seq = self._words[_BEGUN]
            at = self._floats[_BEGUN_AT + seq % MAX_HANDED]
            self._fence()
            if self._words[_BEGUN] == seq:
                return seq, at

    def begun_at(self, seq: int) -> float:
        """When task ``seq`` was begun (CLOCK_MONOTONIC); infinite if it has ended.

        It must have begun, and its report must not have come: the place is used again.

        Raises:
          PageError: if what is there is no time, or `begun` would raise.
        """
        at = self._floats[_BEGUN_AT + seq % MAX_HANDED]
        if self._words[_MAGIC_WORD] != _MAGIC or not at >= 0:
            raise PageError
        return at

    def progressed(self, seqs: Iterable[int]) -> list[tuple[int, bytes]]:
        """The newest values of those of the tasks ``seqs`` that have new ones since the last call.

        It costs one look if there is nothing new. A value that is being written is left for the
        next call, for which the worker will ring.

        Raises:
          PageError: if a value is larger than there is room for.
        """
        return self._progress.read(seqs)

    def published(self, fetch: Callable[[tuple[Any, ...]], bytes] | None = None) -> list[Report]:
        """The reports that are finished and perhaps not sent; safe while the worker runs.

        Args:
          fetch: Where bodies are that are not on the page; raises `WireError`.

        Raises:
          PageError: if there are no reports there.
        """
        generation, size = divmod(self._words[_PUBLISHED], _GENERATION)
        if size > RECORD_SIZE - _RESULTS:
            raise PageError
        data = bytes(self._view[_RESULTS : _RESULTS + size])
        self._fence()
        if self._words[_PUBLISHED] // _GENERATION != generation:
            return []
        stream: TaskStream[Report] = TaskStream(REPORT, fetch=fetch)
        reports = stream.feed(data)
        if stream.held:
            raise PageError
        return reports
