"""Numbers that all processes of a server see at once: how much room the queue has, who is how busy.

An event worker must know synchronously whether one more task may be posted (`task_nowait` cannot
ask), and the bound is one for the whole server. So the manager publishes what it holds, each event
worker counts what it has posted, the manager what of that has arrived, and the sum is right but for
posts of the same instant: two workers that see the same last place both take it.

Every number has one writer, and is one aligned machine word, which is written and read whole. What
the manager publishes belongs together, so it is written beside the last state, and a version says
which one is in force: nobody ever waits for a writer, which may be stopped.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from trioserver._shared_memory import create_shared_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORD: Final = 8
MAX_SEATS: Final = 4096
"""Event worker processes at a time, old ones too."""
# Of the manager; a state is in the place of its version modulo 2.
_VERSION: Final = 0
_TASK_WORKERS: Final = 1
_SEATS: Final = 2
_STATES: Final = 3
_STATE: Final = 5
_HEADER: Final = _STATES + 2 * _STATE
_read: Final = struct.Struct(f"{_HEADER}q").unpack_from
# Of the event worker in each seat, side by side for all seats: what it has posted, and the bytes of
# that, through all processes that have ever sat there.
_POSTED: Final = 16
_POSTED_BYTES: Final = _POSTED + MAX_SEATS
_CONNECTIONS: Final = _POSTED_BYTES + MAX_SEATS
_UNHEARD: Final = _CONNECTIONS + MAX_SEATS
_UNHEARD_BYTES: Final = _UNHEARD + MAX_SEATS
_ENDS: Final = _UNHEARD_BYTES + MAX_SEATS
# Of the manager, for each seat.
_ACCEPTS: Final = _ENDS + MAX_SEATS
_SIZE: Final = (_ACCEPTS + MAX_SEATS) * _WORD


class Look(NamedTuple):
    """How full the queue is, at one moment."""

    version: int
    """Of what the manager holds."""
    waiting: int
    """Jobs that have not begun, with those on their way that will not begin at once."""
    held_bytes: int
    """Bytes of the data of jobs that have not ended, with those on their way."""


class Room:
    """The shared memory, mapped.

    Args:
      fd: Of the memory; None makes it.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd = create_shared_memory("trioserver-room", _SIZE) if fd is None else fd
        self._map = mmap.mmap(self.fd, _SIZE)
        self._words = memoryview(self._map).cast("q")
        # The manager's: what has arrived of what was posted in each seat, and the sums.
        self._taken_of: Counter[int] = Counter()
        self._taken_bytes_of: Counter[int] = Counter()
        self.taken_tasks = 0
        """What has arrived in all seats, since the start."""
        self.taken_bytes = 0

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._map.close()
        os.close(self.fd)

    # What the manager writes

    def publish(self, waiting: int, free: int, held_bytes: int, task_workers: int) -> int:
        """What the dispatcher has: jobs that wait, jobs that could begin at once, bytes, workers.

        Returns:
          The version of this state.
        """
        words = self._words
        words[_TASK_WORKERS] = task_workers
        version = words[_VERSION] + 1
        at = _STATES + version % 2 * _STATE
        words[at] = waiting
        words[at + 1] = free
        words[at + 2] = held_bytes
        words[at + 3] = self.taken_tasks
        words[at + 4] = self.taken_bytes
        words[_VERSION] = version
        return version

    def open_seat(self, seat: int) -> None:
        """A process takes it."""
        self.close_seat(seat)
        self._words[_SEATS] = max(self._words[_SEATS], seat + 1)

    def close_seat(self, seat: int) -> int:
        """Its process is dead: what was on its way will never arrive; `publish` must follow.

        Returns:
          How many tasks were.
        """
        posted = self._words[_POSTED + seat] - self._taken_of[seat]
        posted_bytes = self._words[_POSTED_BYTES + seat] - self._taken_bytes_of[seat]
        self.taken(seat, posted, posted_bytes)
        self._clear(seat)
        return max(posted, 0)  # of one that counts wrongly itself nothing is known

    def taken(self, seat: int, tasks: int, task_bytes: int) -> None:
        """So much of what was posted there has arrived; `publish` must follow."""
        self._taken_of[seat] += tasks
        self._taken_bytes_of[seat] += task_bytes
        self.taken_tasks += tasks
        self.taken_bytes += task_bytes

    def accepts(self, seat: int, accepts: bool) -> None:  # noqa: FBT001  # it is what is set
        """Whether its process accepts connections."""
        self._words[_ACCEPTS + seat] = accepts

    def _clear(self, seat: int) -> None:
        for number in (_CONNECTIONS, _UNHEARD, _UNHEARD_BYTES, _ENDS, _ACCEPTS):
            self._words[number + seat] = 0

    # What an event worker writes

    def posted(self, seat: int, task_bytes: int) -> None:
        """One more task is on its way to the manager."""
        words = self._words
        words[_POSTED + seat] += 1
        words[_POSTED_BYTES + seat] += task_bytes

    def has_connections(self, seat: int, count: int) -> None:
        """So many are open there."""
        self._words[_CONNECTIONS + seat] = count

    def has_unheard(self, seat: int, count: int, size: int) -> None:
        """So many completions wait for ``on_finish`` there, of so many bytes."""
        self._words[_UNHEARD + seat] = count
        self._words[_UNHEARD_BYTES + seat] = size

    def has_taken_ends(self, seat: int, count: int) -> None:
        """So many completions have arrived there since its process began."""
        self._words[_ENDS + seat] = count

    # What everybody reads

    def heard_ends(self, seat: int) -> int:
        """How many completions were heard there, since its process began."""
        return max(self._words[_ENDS + seat] - self._words[_UNHEARD + seat], 0)

    def look(self) -> Look:
        """How full the queue is now."""
        version, waiting, held = self.look_fast()
        return Look(version, waiting, held)

    def look_fast(self) -> tuple[int, int, int]:
        """`look` without names: it is asked before every post."""
        words = self._words
        while True:
            fields = _read(self._map)
            version = fields[0]
            # Else the manager, two states later, may have been writing where this has read.
            if words[0] == version:
                break
        _, _, seats, *states = fields
        if version % 2:
            _, _, _, _, _, waiting, free, held, taken, taken_bytes = states
        else:
            waiting, free, held, taken, taken_bytes, _, _, _, _, _ = states
        coming = -taken
        held -= taken_bytes
        for seat in range(seats):
            coming += words[_POSTED + seat]
            held += words[_POSTED_BYTES + seat]
        if coming > free:
            waiting += coming - free
        return version, waiting, held

    @property
    def task_workers(self) -> int:
        """How many there are."""
        return self._words[_TASK_WORKERS]

    def connections(self, seat: int) -> int:
        """How many are open there."""
        return self._words[_CONNECTIONS + seat]

    def unheard(self, seat: int) -> tuple[int, int]:
        """How many completions wait there, and of how many bytes."""
        return self._words[_UNHEARD + seat], self._words[_UNHEARD_BYTES + seat]

    def fewest_connections(self) -> int:
        """Of those who accept, who has the fewest, has so many; 0 if nobody accepts."""
        words = self._words
        return min(
            (words[_CONNECTIONS + seat] for seat in range(words[_SEATS]) if words[_ACCEPTS + seat]),
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
