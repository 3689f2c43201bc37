"""One stop, one deadline: what the stages of a server's end share."""

from __future__ import annotations

from typing import Final

import trio

GRACE: Final = 0.3
"""Seconds that a stage has when the deadline is over: to deliver what was cut, not to go on."""


class Stopping:
    """When the stop was asked for, until when work in hand may go on, and what had to be cut.

    Args:
      max_wait_time: Seconds from the request to the deadline.
    """

    def __init__(self, max_wait_time: float) -> None:
        self._max_wait_time = max_wait_time
        self._requested = trio.Event()
        self.deadline = float("inf")
        """In Trio's time; infinite until the stop is asked for."""
        self.cut = 0
        """Tasks and callbacks that were ended by force, and completions that nobody heard."""

    def request(self) -> None:
        """Ask for the stop; the first call counts."""
        if not self._requested.is_set():
            self.deadline = trio.current_time() + self._max_wait_time
            self._requested.set()

    async def wait_requested(self) -> None:
        """Until the stop is asked for."""
        await self._requested.wait()

    def until_deadline(self) -> trio.CancelScope:
        """A scope for work in hand."""
        return trio.CancelScope(deadline=self.deadline)

    def for_a_stage(self) -> trio.CancelScope:
        """A scope for a stage that must have its turn: until the deadline, but at least `GRACE`."""
        deadline = max(self.deadline, trio.current_time() + GRACE)
        return trio.CancelScope(deadline=deadline)
