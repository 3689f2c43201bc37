"""Whether to stay awake for what may come in a moment, or to sleep until it comes.

To fall asleep and be woken costs about 50 µs on either side, which is more than all the rest of a
tiny task that somebody waits for. So both sides of its way stay awake for a while, if that has paid
lately: they wait, at the most, for about as long as both ends' sleep would cost. Rules:

1. It is for what would be idle. Whoever stays awake lets all others run first, at every look.
2. Whatever was in vain is tried less and less often, so that it costs nothing where nothing comes.
3. Where a process has a single core when it starts, nothing can come while it is awake.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

AWAKE: Final = 0.0001
"""Seconds to stay awake at the most."""
MAX_PASSED: Final = 64
"""Waits without an attempt, after many attempts that were in vain."""


class Patience:
    """Learns whether staying awake pays, from what has come of it so far.

    Args:
      clock: The time in seconds.
      cores: On how many cores this process may run.
    """

    __slots__ = ("_clock", "_is_alone", "_left", "_passed", "_until")

    def __init__(self, clock: Callable[[], float] = monotonic, cores: int | None = None) -> None:
        self._clock = clock
        self._is_alone = (cores_here() if cores is None else cores) == 1
        # How many waits pass without an attempt after one in vain, and how many of them are left.
        self._passed = 0
        self._left = 0
        self._until = 0.0

    def begins(self) -> bool:
        """Whether to stay awake this time, for as long as `goes_on`."""
        if self._is_alone:
            return False
        if self._left:
            self._left -= 1
            return False
        self._until = self._clock() + AWAKE
        return True

    def goes_on(self) -> bool:
        """Whether to look once more; else it was in vain."""
        if self._clock() < self._until:
            return True
        self._passed = self._left = min(2 * self._passed + 1, MAX_PASSED)
        return False

    def has_paid(self) -> None:
        """It came while this was awake."""
        self._passed = self._left = 0


def cores_here() -> int:
    """On how many cores this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
