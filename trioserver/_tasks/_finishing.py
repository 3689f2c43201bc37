"""The loops behind the channel of completions: they call ``on_finish``, and ``on_progress``.

One loop would let one slow ``on_finish`` hold up all others, and a Trio task for each completion
costs more than most of them do. So a loop that is about to call makes sure that another one is
there to take the next completion, and hundreds of quick ones are still called by one or two loops.
"""

from __future__ import annotations

import logging
import math
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from trioserver._guard import contained

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trioserver._pacing import Pacer
    from trioserver._tasks._values import Completion

    OnFinish = Callable[[Completion], Awaitable[object]]

logger = logging.getLogger("trioserver.tasks")

MAX_LOOPS: Final = 64
"""Calls of ``on_finish`` that may wait at the same time; further completions queue behind them."""

Call: TypeAlias = (
    "tuple[str, Callable[..., Awaitable[object]], tuple[Any, ...], Callable[..., None]]"
)
"""Its name, a coroutine function, what that is called with, and what is called so afterwards."""


class _Running:
    """A call that runs; Trio tasks that it starts inherit it, and may outlive it."""

    __slots__ = ("is_over",)

    def __init__(self) -> None:
        self.is_over = False


_running: ContextVar[_Running | None] = ContextVar("_running", default=None)


def is_in_on_finish() -> bool:
    """Whether this is inside a call of a loop that has not returned, or in what it has started."""
    running = _running.get()
    return running is not None and not running.is_over


class FinishLoops:
    """A channel of calls, and the loops that make them, each begun in its order.

    Loops do not wait in the channel itself: an item that it hands to one who sleeps there would
    be overtaken by the next one, taken by a loop that is awake.

    Args:
      nursery: Where the loops run.
      pacer: Decides when a loop yields to others.
    """

    def __init__(self, nursery: trio.Nursery, pacer: Pacer) -> None:
        # Without a bound of its own: the pool bounds what can be in it, and whoever delivers must
        # never wait for an `on_finish`.
        self._send, self._receive = trio.open_memory_channel[Call](math.inf)
        self._nursery = nursery
        self._pacer = pacer
        self._sleeping = trio.lowlevel.ParkingLot()
        self._loops = 0
        # Loops that are not inside a call.
        self._spare = 0
        self._start_one()

    def call_soon(self, call: Call) -> None:
        """Have ``call`` made.

        Raises:
          trio.ClosedResourceError: after `close`.
        """
        self._send.send_nowait(call)
        self._sleeping.unpark()

    def close(self) -> None:
        """Let the loops end when nothing is left to call."""
        self._send.close()
        self._sleeping.unpark_all()

    def _start_one(self) -> None:
        self._loops += 1
        self._spare += 1
        self._nursery.start_soon(self._run, name="trioserver finish loop")

    async def _run(self) -> None:
        while True:
            try:
                name, async_fn, args, after = self._receive.receive_nowait()
            except trio.WouldBlock:
                if self._spare > 2:  # noqa: PLR2004  # one that sleeps, one that is about to
                    break
                await self._sleeping.park()
                continue
            except trio.EndOfChannel:
                break
            self._spare -= 1
            if self._spare == 0 and self._loops < MAX_LOOPS:
                self._start_one()
            running = _Running()
            _running.set(running)
            try:
                await contained(logger, name, async_fn, *args)
            finally:
                running.is_over = True
            self._spare += 1
            after(*args)
            await self._pacer.checkpoint()
        self._loops -= 1
        self._spare -= 1
