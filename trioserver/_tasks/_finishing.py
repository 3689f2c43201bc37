"""The loops behind the channel of completions: they call ``on_finish``.

One loop would let one slow ``on_finish`` hold up all others, and a Trio task for each completion
costs more than most of them do. So a loop that is about to call makes sure that another one is
there to take the next completion, and hundreds of quick ones are still called by one or two loops.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

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

_in_on_finish: ContextVar[bool] = ContextVar("_in_on_finish", default=False)


def is_in_on_finish() -> bool:
    """Whether this runs inside an ``on_finish``, or in a Trio task that one has started."""
    return _in_on_finish.get()


class FinishLoops:
    """Calls ``on_finish`` for every completion in the channel, in their order, several at once.

    Args:
      receive: The channel; its end is the end of the loops.
      nursery: Where the loops run.
      delivered: Called after each call of ``on_finish``, however it ended.
      pacer: Decides when a loop yields to others.
    """

    def __init__(
        self,
        receive: trio.MemoryReceiveChannel[tuple[OnFinish, Completion]],
        nursery: trio.Nursery,
        delivered: Callable[[], None],
        pacer: Pacer,
    ) -> None:
        self._receive = receive
        self._nursery = nursery
        self._delivered = delivered
        self._pacer = pacer
        self._loops = 0
        # Loops that are not inside an `on_finish`.
        self._spare = 0

    def start(self) -> None:
        """Start one more loop."""
        self._loops += 1
        self._spare += 1
        self._nursery.start_soon(self._run, name="trioserver finish loop")

    async def _run(self) -> None:
        _in_on_finish.set(True)
        while True:
            try:
                on_finish, completion = self._receive.receive_nowait()
            except trio.WouldBlock:
                if self._spare > 2:  # noqa: PLR2004  # one that waits, one that is about to
                    break
                try:
                    on_finish, completion = await self._receive.receive()
                except trio.EndOfChannel:
                    break
            except trio.EndOfChannel:
                break
            self._spare -= 1
            if self._spare == 0 and self._loops < MAX_LOOPS:
                self.start()
            name = f"on_finish of task {completion.task_id}"
            await contained(logger, name, on_finish, completion)
            self._spare += 1
            self._delivered()
            await self._pacer.checkpoint()
        self._loops -= 1
        self._spare -= 1
