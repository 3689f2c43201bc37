"""Numbers that all processes of a server see at once: how much room the queue has, who is how busy.

An event worker must know synchronously whether one more task may be posted (`task_nowait` cannot
ask), and the bound is one for the whole server. So the manager publishes what it holds, each event
worker counts what it has posted, the manager what of that has arrived, and the sum is right but for
posts of the same instant: two workers that see the same last place both take it.

Every number has one writer, and is one aligned machine word, which is written and read whole.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORD: Final = 8
MAX_SEATS: Final = 4096
"""Event worker processes at a time, old ones too."""
# Of the manager.
_WAITING: Final = 0
_FREE: Final = 1
_BYTES: Final = 2
_TASK_WORKERS: Final = 3
_SEATS: Final = 4
_HEADER: Final = 8
# Of each seat. The first four are the event worker's.
_POSTED: Final = 0
_POSTED_BYTES: Final = 1
_CONNECTIONS: Final = 2
_UNHEARD: Final = 3
_TAKEN: Final = 4
_TAKEN_BYTES: Final = 5
_ACCEPTS: Final = 6
_SEAT: Final = 8
_SIZE: Final = (_HEADER + MAX_SEATS * _SEAT) * _WORD


class Room:
    """The shared memory, mapped.

    Args:
      fd: Of the memory; None makes it.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd = _new_memory() if fd is None else fd
        self._map = mmap.mmap(self.fd, _SIZE)
        self._words = memoryview(self._map).cast("Q")

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._map.close()
        os.close(self.fd)

    # What the manager writes

    def publish(self, waiting: int, free: int, held_bytes: int, task_workers: int) -> None:
        """What the dispatcher has: jobs that wait, jobs that could begin at once, bytes, workers."""
        words = self._words
        words[_WAITING] = waiting
        words[_FREE] = free
        words[_BYTES] = held_bytes
        words[_TASK_WORKERS] = task_workers

    def open_seat(self, seat: int) -> None:
        """A process takes it, which has posted nothing."""
        at = _HEADER + seat * _SEAT
        self._words[at : at + _SEAT] = memoryview(bytes(_SEAT * _WORD)).cast("Q")
        self._words[_SEATS] = max(self._words[_SEATS], seat + 1)

    def close_seat(self, seat: int) -> None:
        """Its process is dead: what was on its way will never arrive."""
        self.open_seat(seat)

    def taken(self, seat: int, tasks: int, task_bytes: int) -> None:
        """So much of what was posted there has arrived, and was published."""
        at = _HEADER + seat * _SEAT
        self._words[at + _TAKEN] += tasks
        self._words[at + _TAKEN_BYTES] += task_bytes

    def accepts(self, seat: int, accepts: bool) -> None:  # noqa: FBT001  # it is what is set
        """Whether its process accepts connections."""
        self._words[_HEADER + seat * _SEAT + _ACCEPTS] = accepts

    # What an event worker writes

    def posted(self, seat: int, task_bytes: int) -> None:
        """One more task is on its way to the manager."""
        at = _HEADER + seat * _SEAT
        self._words[at + _POSTED] += 1
        self._words[at + _POSTED_BYTES] += task_bytes

    def has_connections(self, seat: int, count: int) -> None:
        """So many are open there."""
        self._words[_HEADER + seat * _SEAT + _CONNECTIONS] = count

    def has_unheard(self, seat: int, count: int) -> None:
        """So many completions wait for ``on_finish`` there."""
        self._words[_HEADER + seat * _SEAT + _UNHEARD] = count

    # What everybody reads

    @property
    def waiting(self) -> int:
        """Jobs that have not begun, with those on their way; less than 0 if more could begin."""
        words = self._words
        waiting = words[_WAITING] - words[_FREE]
        for at in range(_HEADER, _HEADER + words[_SEATS] * _SEAT, _SEAT):
            waiting += words[at + _POSTED] - words[at + _TAKEN]
        return waiting

    @property
    def held_bytes(self) -> int:
        """Bytes of the data of jobs that have not ended, with those on their way."""
        words = self._words
        held = words[_BYTES]
        for at in range(_HEADER, _HEADER + words[_SEATS] * _SEAT, _SEAT):
            held += words[at + _POSTED_BYTES] - words[at + _TAKEN_BYTES]
        return held

    @property
    def task_workers(self) -> int:
        """How many there are."""
        return self._words[_TASK_WORKERS]

    def connections(self, seat: int) -> int:
        """How many are open there."""
        return self._words[_HEADER + seat * _SEAT + _CONNECTIONS]

    def unheard(self, seat: int) -> int:
        """How many completions wait there."""
        return self._words[_HEADER + seat * _SEAT + _UNHEARD]

    def fewest_connections(self) -> int:
        """Of those who accept, who has the fewest, has so many; 0 if nobody accepts."""
        words = self._words
        return min(
            (
                words[at + _CONNECTIONS]
                for at in range(_HEADER, _HEADER + words[_SEATS] * _SEAT, _SEAT)
                if words[at + _ACCEPTS]
            ),
            default=0,
        )


@contextmanager
def open_room() -> Iterator[Room]:
    """New shared memory, while inside."""
    room = Room()
    try:
        yield room
    finally:
        room.close()


def _new_memory() -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("trioserver-room")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, _SIZE)
    return fd
