"""The loops behind the channel of completions: they call ``on_finish``, and ``on_progress``.

One loop would let one slow ``on_finish`` hold up all others, and a Trio task for each completion
costs more than most of them do. So a loop that is about to call makes sure that another one is
there to take the next completion, and hundreds of quick ones are still called by one or two loops.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from trioserver._guard import contain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trioserver._pacing import Pacer
    from trioserver._tasks._job import Job
    from trioserver._tasks._values import Completion

    OnFinish = Callable[[Completion], Awaitable[object]]

logger = logging.getLogger("trioserver.tasks")

MAX_LOOPS: Final = 64
"""Calls of ``on_finish`` that may wait at the same time; further completions queue behind them."""

Call: TypeAlias = "tuple[str, Job, Callable[[Any], Awaitable[object]], Any, Callable[[Job], None]]"
"""What it is, of which job, a coroutine function, its argument, and what hears of it afterwards."""

# What is in it while a call runs is taken out when that is over: Trio tasks that the call has
# started inherit the list, and may outlive it.
_running: ContextVar[list[bool] | None] = ContextVar("_running", default=None)


def is_in_on_finish() -> bool:
    """Whether this is inside a call of a loop that has not returned, or in what it has started."""
    return bool(_running.get())


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
        self._send, self._receive = trio.open_memory_channel["list[Call]"](math.inf)
        # What was taken out of the channel, for whichever loop is free.
        self._next: deque[Call] = deque()
        self._nursery = nursery
        self._pacer = pacer
        self._lot = trio.lowlevel.ParkingLot()
        self._sleeping = 0
        self._loops = 0
        # Loops that are not inside a call.
        self._spare = 0
        self._start_one()

    def call_soon(self, *calls: Call) -> None:
        """Have ``calls`` made, in their order.

        Raises:
          trio.ClosedResourceError: after `close`.
        """
        self._send.send_nowait([*calls])
        self._wake_one()

    def close(self) -> None:
        """Let the loops end when nothing is left to call."""
        self._send.close()
        self._sleeping = 0
        self._lot.unpark_all()

    def _start_one(self) -> None:
        self._loops += 1
        self._spare += 1
        self._nursery.start_soon(self._run, name="trioserver finish loop")

    def _wake_one(self) -> None:
        if self._sleeping:
            self._sleeping -= 1
            self._lot.unpark()

    async def _run(self) -> None:
        calls, pacer = self._next, self._pacer
        while True:
            if not calls:
                try:
                    calls.extend(self._receive.receive_nowait())
                except trio.WouldBlock:
                    if self._spare > 2:  # noqa: PLR2004  # one that sleeps, one that is about to
                        break
                    self._sleeping += 1
                    await self._lot.park()
                    continue
                except trio.EndOfChannel:
                    break
            what, job, async_fn, argument, after = calls.popleft()
            self._spare -= 1
            if calls and self._sleeping:
                self._wake_one()  # this call may take long
            if self._spare == 0 and self._loops < MAX_LOOPS:
                self._start_one()
            running = [True]
            _running.set(running)
            try:
                await async_fn(argument)
            except BaseException as exc:  # noqa: ASYNC103, BLE001  # what must pass is raised again
                contain(logger, f"{what} of task {job.id}", exc)
            finally:
                running.clear()
            self._spare += 1
            after(job)
            del job, argument  # who sleeps next keeps no data and no result in memory
            # Else it is checked for cancellation by what it calls, and where it sleeps.
            if perf_counter() >= pacer.yield_at:  # `is_due`, without the call
                await pacer.give_turn()
        self._loops -= 1
        self._spare -= 1
