"""What recent run times say about how much work should travel at a time."""

from __future__ import annotations

import math
from typing import Final

WINDOW: Final = 0.002
"""Seconds of work that are handed ahead of a worker's running task."""
MAX_AHEAD: Final = 192
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
        # Worked out when the mean changes: they are looked at more often than that.
        self.is_long = True
        """Whether a round trip is small beside a run."""
        self.window = 1
        """How many jobs to hand ahead of a running one."""
        self.worth_waking = 0.0
        """How many jobs are worth waking another worker for; infinite if they take no time."""

    def learn(self, total: float, runs: int) -> None:
        """So many ``runs`` took ``total`` seconds."""
        mean = total / runs
        if self._mean != math.inf:
            mean = self._mean + (mean - self._mean) * runs / (runs + _MEMORY)
        self._mean = mean
        self.is_long = mean >= LONG
        self.window = max(1, min(MAX_AHEAD, int(WINDOW / max(mean, 1e-9))))
        self.worth_waking = WAKE_WORTH / mean if mean else math.inf
