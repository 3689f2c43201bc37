"""How often hot calls yield to the scheduler."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable

TURN: Final = 0.001
"""Seconds that hot calls may go on without yielding. A yield costs ten times what they cost."""


class Pacer:
    """Shared by the hot calls of an event worker, since any of them gives all others their turn."""

    __slots__ = ("yield_at",)

    def __init__(self) -> None:
        self.yield_at = 0.0
        """When the next turn is due, by `time.perf_counter`."""

    def checkpoint(self) -> Awaitable[None]:
        """Check for cancellation, and yield if nobody has for a while; to be awaited."""
        if perf_counter() < self.yield_at:
            return trio.lowlevel.checkpoint_if_cancelled()  # noqa: ASYNC105  # one coroutine less
        return self.give_turn()

    def is_due(self) -> bool:
        """Whether the next `checkpoint` would yield."""
        return perf_counter() >= self.yield_at

    def note_turn(self, share: float = 0.0) -> None:
        """The caller has just yielded by itself; it may go on for ``share`` seconds at least."""
        self.yield_at = perf_counter() + max(TURN, share)

    async def give_turn(self) -> None:
        """Yield now."""
        await trio.lowlevel.checkpoint()
        self.yield_at = perf_counter() + TURN
