"""Large bodies in memory that the dispatcher's process and one task worker share.

A socket would have the kernel copy each body twice, a piece at a time, and wake up the other side
for every piece. Here a body is copied in once and out once, and the record on the socket says where
it lies. The rules:

1. There are two regions: the dispatcher writes bodies of orders into one, the worker bodies of
   reports into the other. Each side has the books of its region in memory of its own, and reads
   from the other one nothing but bytes whose place it has checked. The worker maps the orders for
   reading only: a task that scribbles there harms none of those that wait behind it.
2. The place of an order's body is used again when its task is reported: by then it is unpickled,
   and the task has an object of its own. A report's body is copied out when its record is read, and
   the count of those that were read, which lies before the orders, has the worker use their places
   again, in the order of their records.
3. A body for which there is no room goes by the socket. So do all where shared memory is a file
   (macOS): the server would be killed at its next write if the disk were full.
4. The lowest place that fits is taken, so as many pages are in memory as bodies were under way at
   once, and those are in the processor's cache. When all has been quiet for a while, they are given
   back.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import mmap
import os
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable  # noqa: TC003  # cheap, and needed to read the signature
from contextlib import suppress
from typing import Final

from trioserver._tasks._payloads import expect_size
from trioserver._tasks._progress_page import PAGE_SIZE, make_fence
from trioserver._tasks._wire import ELSEWHERE, WireError

LARGE: Final = 16 * 1024
"""Bytes from which on a body is worth a place of its own."""
REGION_SIZE: Final = 16 * 1024 * 1024
_ROOM: Final = REGION_SIZE if hasattr(os, "memfd_create") else 0
_HEAD_SIZE: Final = 64 * 1024  # where maps may begin, on every system
ARENA_SIZE: Final = _HEAD_SIZE + 2 * REGION_SIZE
"""Bytes behind the flight recorder; most of it is never touched, and takes no memory then."""
_ORDERS: Final = _HEAD_SIZE
_REPORTS: Final = _HEAD_SIZE + REGION_SIZE
_READ: Final = 0  # the word of the head that counts reports whose bodies were read
_ALIGNMENT: Final = 64
_SIZE_BITS: Final = 32
_SIZE_MASK: Final = (1 << _SIZE_BITS) - 1


class Space:
    """Which parts of ``size`` bytes are taken."""

    def __init__(self, size: int) -> None:
        self._size = size
        # Where each part begins and ends, in their order: there are never many.
        self._starts: list[int] = []
        self._ends: list[int] = []

    def take(self, size: int) -> int | None:
        """Where the lowest part of ``size`` bytes that was free begins; None if there is none."""
        starts, ends = self._starts, self._ends
        at = index = 0
        for start in starts:
            if start - at >= size:
                break
            at = ends[index]
            index += 1
        else:
            if self._size - at < size:
                return None
        starts.insert(index, at)
        ends.insert(index, (at + size + _ALIGNMENT - 1) & -_ALIGNMENT)
        return at

    def give_back(self, start: int) -> None:
        """The part that begins at ``start`` is free again."""
        index = bisect_left(self._starts, start)
        del self._starts[index], self._ends[index]


class WorkerArena:
    """The worker's side.

    Args:
      fd: The memory, which begins with the flight recorder.
    """

    def __init__(self, fd: int) -> None:
        orders = mmap.mmap(fd, _REPORTS, prot=mmap.PROT_READ, offset=PAGE_SIZE)
        self._orders = memoryview(orders)
        self._head = self._orders[:8].cast("Q")
        self._reports = memoryview(mmap.mmap(fd, REGION_SIZE, offset=PAGE_SIZE + _REPORTS))
        self._space = Space(_ROOM)
        # Places that are taken, in the order of their reports, and how many were given back.
        self._taken: deque[int] = deque()
        self._given_back = 0
        self._fence = make_fence()

    def order_at(self, where: int) -> memoryview:
        """The body of an order, to be unpickled before its task is reported."""
        size = where & _SIZE_MASK
        at = _ORDERS + ((where & ~ELSEWHERE) >> _SIZE_BITS)
        expect_size(size)
        return self._orders[at : at + size]

    def place(self, body: bytes) -> int | None:
        """Put the body of a report here: what stands for its size; None if there is no room."""
        if self._head[_READ] != self._given_back:
            self._take_back()
        size = len(body)
        start = self._space.take(size)
        if start is None:
            return None
        self._taken.append(start)
        self._reports[start : start + size] = body
        return ELSEWHERE | start << _SIZE_BITS | size

    def _take_back(self) -> None:
        """Use the places of bodies that were read again."""
        read = self._head[_READ]
        self._fence()
        while self._given_back < read and self._taken:
            self._given_back += 1
            self._space.give_back(self._taken.popleft())


class Arena:
    """The dispatcher's side.

    Args:
      fd: The memory, which begins with the flight recorder.
    """

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, ARENA_SIZE, offset=PAGE_SIZE)
        self._view = memoryview(self._map)
        self._head = self._view[:8].cast("Q")
        self._space = Space(_ROOM)
        # Where the bodies of orders are, by their seqs.
        self._taken: dict[int, int] = {}
        self._read = 0
        self._fence = make_fence()
        self.uses = 0
        """How often it has been used."""

    def place(self, seq: int, body: bytes) -> int | None:
        """Put the body of order ``seq`` here: what stands for its size; None without room."""
        size = len(body)
        start = self._space.take(size)
        if start is None:
            return None
        self.uses += 1
        self._taken[seq] = start
        at = _ORDERS + start
        self._view[at : at + size] = body
        return ELSEWHERE | start << _SIZE_BITS | size

    def reported(self, seqs: Iterable[int]) -> None:
        """Use the places of orders ``seqs`` again, whose tasks have ended."""
        if self._taken:
            for seq in seqs:
                start = self._taken.pop(seq, None)
                if start is not None:
                    self._space.give_back(start)

    def report_at(self, where: int) -> bytes:
        """A copy of the body of a report.

        Raises:
          WireError: if it cannot be there.
        """
        size = where & _SIZE_MASK
        at = _REPORTS + ((where & ~ELSEWHERE) >> _SIZE_BITS)
        if at + size > ARENA_SIZE:
            raise WireError
        expect_size(size)
        self.uses += 1
        return bytes(self._view[at : at + size])

    def has_read(self, count: int) -> None:
        """The worker may use the places of the next ``count`` reports, in their order, again."""
        self._fence()
        self._read += count
        self._head[_READ] = self._read

    def empty(self) -> None:
        """Give the pages back to the system, if it takes them; nothing may be under way."""
        if hasattr(mmap, "MADV_REMOVE"):  # Linux
            with suppress(OSError):  # it is for the memory's sake alone, and not every file can
                self._map.madvise(mmap.MADV_REMOVE, _ORDERS, 2 * REGION_SIZE)

    def close(self) -> None:
        """Unmap it."""
        self._head.release()
        self._view.release()
        self._map.close()


def size_at(where: int) -> int:
    """The size of the body at a place."""
    return where & _SIZE_MASK
