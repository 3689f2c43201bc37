"""One stop, one deadline: what the stages of a server's end share."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

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
        self._in_haste = trio.Event()
        # Those whose deadline a later request may bring forward, and what they have at the least.
        self._scopes: dict[trio.CancelScope, float] = {}
        self.deadline = math.inf
        """In Trio's time; infinite until the stop is asked for, and where it may take its time."""
        self.keeps_listening = False
        """Whether others accept where this one did: the sockets are not closed."""
        self.cut = 0
        """Tasks and callbacks that were ended by force, and completions that nobody heard."""

    def request(self) -> None:
        """Ask for the stop; the first call counts."""
        if self._in_haste.is_set():
            return
        self.deadline = trio.current_time() + self._max_wait_time
        for scope, least in self._scopes.items():
            scope.deadline = max(self.deadline, least)
        self._requested.set()
        self._in_haste.set()

    def retire(self) -> None:
        """Ask for a stop that loses nothing, since another process takes over.

        Nobody is accepted any more; connections are served for ``max_wait_time``, and then those
        that are idle close. What callbacks and tasks have begun may last as long as it takes.
        """
        if not self._requested.is_set():
            self.keeps_listening = True
            self._requested.set()

    @property
    def is_requested(self) -> bool:
        """Whether either stop was asked for."""
        return self._requested.is_set()

    @property
    def hands_over(self) -> bool:
        """Whether it was told to retire, and not to stop since."""
        return self._requested.is_set() and not self._in_haste.is_set()

    async def wait_requested(self) -> None:
        """Until either stop is asked for."""
        await self._requested.wait()

    async def wait_before_idle_ones_close(self, wait_none: Callable[[], Awaitable[object]]) -> None:
        """While one that retires goes on serving the connections that it has.

        Args:
          wait_none: Returns when there are none.
        """
        with trio.move_on_after(self._max_wait_time):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_in_haste, nursery.cancel_scope)
                await wait_none()
                nursery.cancel_scope.cancel()

    async def _cancel_in_haste(self, scope: trio.CancelScope) -> None:
        await self._in_haste.wait()
        scope.cancel()

    @contextmanager
    def until_deadline(self) -> Iterator[trio.CancelScope]:
        """A scope for work in hand."""
        with self._scope(-math.inf) as scope:
            yield scope

    @contextmanager
    def for_a_stage(self) -> Iterator[trio.CancelScope]:
        """A scope for a stage that must have its turn: until the deadline, but at least `GRACE`."""
        with self._scope(trio.current_time() + GRACE) as scope:
            yield scope

    @contextmanager
    def _scope(self, least: float) -> Iterator[trio.CancelScope]:
        with trio.CancelScope(deadline=max(self.deadline, least)) as scope:
            self._scopes[scope] = least
            try:
                yield scope
            finally:
                del self._scopes[scope]
