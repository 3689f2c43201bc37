"""What recent run times say about how much work should travel at a time."""

from __future__ import annotations

import math
from typing import Final

WINDOW: Final = 0.002
"""Seconds of work that are handed ahead of a worker's running task."""
MAX_AHEAD: Final = 128
"""Jobs that are handed ahead at the most; a flight recorder tells `MAX_HANDED` apart."""
AHEAD_BYTES: Final = 256 * 1024
"""Pickled data that a worker may have to read before it is handed more, unless that is one job's.

Beyond it, a round trip is nothing; and what travels is in memory twice.
"""
WAKE_WORTH: Final = 0.0001
"""Seconds of queued work that are worth waking a second worker for: about a round trip.

Waking one for 20 µs of work makes everything slower.
"""
LONG: Final = 0.001
"""Run times from here on are long: a round trip is small beside them."""
_MEMORY: Final = 8
"""Runs whose mean a new mean of as many weighs as much as."""


class RunTimes:
    """A moving mean of run times; before the first one is known, they count as long."""

    def __init__(self) -> None:
        self._mean = math.inf

    def learn(self, total: float, runs: int) -> None:
        """So many ``runs`` took ``total`` seconds."""
        mean = total / runs
        if self._mean == math.inf:
            self._mean = mean
        else:
            self._mean += (mean - self._mean) * runs / (runs + _MEMORY)

    @property
    def is_long(self) -> bool:
        """Whether a round trip is small beside a run."""
        return self._mean >= LONG

    @property
    def window(self) -> int:
        """How many jobs to hand ahead of a running one."""
        return max(1, min(MAX_AHEAD, int(WINDOW / max(self._mean, 1e-9))))

    @property
    def worth_waking(self) -> float:
        """How many jobs are worth waking another worker for; infinite if they take no time."""
        return WAKE_WORTH / self._mean if self._mean else math.inf
