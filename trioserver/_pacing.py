"""When a hot call yields to other tasks.

A pass through Trio's scheduler costs more than a send or a post does, so calls that need not wait
do not take one each. They check for cancellation at every call, and yield when the tasks of this
thread have had no turn for about a millisecond.
"""

from __future__ import annotations

from time import perf_counter
from typing import Final, final

import trio

INTERVAL: Final = 0.001
"""Seconds. A turn costs some 10 µs, so this is 1 % of the time, and nobody waits noticeably."""


@final
class Pacer:
    """Shared by all who run in one Trio thread: a turn that one of them gives counts for all.

    Args:
      interval: Seconds between two turns; 0 makes every call a full checkpoint.
    """

    __slots__ = ("_due", "_interval")

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self._due = 0.0

    def had_turn(self) -> None:
        """Note that other tasks have just had a turn."""
        self._due = perf_counter() + self._interval

    async def checkpoint(self) -> None:
        """Check for cancellation, and yield if a turn is due: for the begin of a call."""
        if perf_counter() < self._due:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
            self.had_turn()

    @property
    def is_due(self) -> bool:
        """Whether a turn is due: to skip `give_turn` on a hot path."""
        return perf_counter() >= self._due

    async def give_turn(self) -> None:
        """Yield without a check for cancellation: for the end of a call that has had its effect."""
        await trio.lowlevel.cancel_shielded_checkpoint()
        self.had_turn()
