"""A dispatcher with its engine at work and its alarm set: the outermost ring of an event worker."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol

import trio

from trioserver._tasks._dispatcher import Dispatcher
from trioserver._tasks._engine import Engine
from trioserver._tasks._patience import Patience

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from trioserver._tasks._engine import Events
    from trioserver._tasks._policy import Policy


class TaskWorkers(Engine, Protocol):
    """An engine and the life of its workers."""

    @property
    def task_worker_num(self) -> int:
        """How many workers it has."""

    @property
    def policy(self) -> Policy:
        """What the settings ask a dispatcher to do."""

    @property
    def clock(self) -> Callable[[], float]:
        """The clock of its reports."""

    @property
    def are_processes(self) -> bool:
        """Whether jobs go on while nothing runs here."""

    async def stack(self, task_id: int) -> str:
        """The Python stack of a running task; see `_controls.Controls.stack`."""

    def running(self, events: Events) -> AbstractAsyncContextManager[None]:
        """Have the workers run; inside, all are ready."""

    async def reload(self) -> None:
        """Put a fresh worker in every place, one after the other, without losing a task.

        Raises:
          AppError: if one cannot begin; then it, and those after it, are not replaced.
        """

    async def scale(self, number: int) -> None:
        """Have so many workers.

        Raises:
          AppError: if one cannot begin; those before it stay.
          TypeError, ValueError: if ``number`` is no whole number, or less than 1.
        """


MAX_NUMBER: Final = 1000
"""Workers that may be asked for while the server runs, where a slip would cost all memory."""


def check_number(number: int) -> None:
    """See that there may be so many workers.

    Raises:
      TypeError, ValueError: see `TaskWorkers.scale`.
    """
    if type(number) is not int:
        raise TypeError(f"the number of task workers must be a whole number: {number!r}")
    if not 1 <= number <= MAX_NUMBER:
        raise ValueError(f"the number of task workers must be from 1 to {MAX_NUMBER}: {number}")


class _Alarm:
    """Calls the dispatcher when it has asked for it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = math.inf
        self._sleep = trio.CancelScope()

    def set(self, at: float) -> None:
        """Ring at ``at``, or before."""
        if at >= self._at:
            return  # a deadline costs more than the dispatcher's asking for one, which is often
        self._at = at
        # In this order nothing is rounded where the two clocks are the same one. A deadline that
        # is a trifle too early would ring for ever under a clock that stands still.
        deadline = at + (trio.current_time() - self._clock())
        self._sleep.deadline = deadline

    async def run(self, ring: Callable[[], None]) -> None:
        """Ring whenever it was set to."""
        while True:
            with self._sleep:
                await trio.sleep_forever()
            self._at = math.inf
            self._sleep = trio.CancelScope()
            ring()


@asynccontextmanager
async def open_dispatcher(
    workers: TaskWorkers, ids: Iterator[int] | None = None
) -> AsyncIterator[Dispatcher]:
    """A dispatcher over ``workers``, all of them ready; they leave at the end.

    Args:
      workers: Its engine.
      ids: Those of tasks; from 0 unless given.
    """
    alarm = _Alarm(workers.clock)
    dispatcher = Dispatcher(
        workers, workers.task_worker_num, workers.clock, alarm.set, workers.policy
    )
    if ids is not None:
        dispatcher.ids = ids
    if workers.are_processes:
        dispatcher.patience = Patience()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alarm.run, dispatcher.look_after)
        async with workers.running(dispatcher):
            yield dispatcher
            dispatcher.statistics()  # which says so if its sums are wrong
        nursery.cancel_scope.cancel()
