"""An engine without processes: jobs run in the process, and the thread, of whoever tests them."""

from __future__ import annotations

import itertools
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from trioserver._errors import AppError
from trioserver._tasks._inline_worker import InlineWorker
from trioserver._tasks._policy import Policy
from trioserver._tasks._workers import check_number

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from trioserver._app import App
    from trioserver._settings import Settings
    from trioserver._tasks._engine import Events
    from trioserver._tasks._job import Job
    from trioserver._tasks._wire import Answer, Report

_KILLED: Final = -9
"""The exit code of a process that SIGKILL has ended."""


class InlineTaskWorkers:
    """Task workers that are Trio tasks, for tests under `trio.testing.MockClock` (an `Engine`).

    Data and results still go through pickle both ways, and everything that is said about order,
    completions and errors holds. A plain ``on_task`` runs to its end before anything else does, so
    it takes no time by Trio's clock, and nothing can end it. One that is a coroutine function takes
    the time that it sleeps; a deadline or `Server.cancel` cancels it.

    Args:
      app: Whose ``on_task`` runs.
      settings: Those in force.
    """

    clock: Callable[[], float] = staticmethod(trio.current_time)
    are_processes = False

    def __init__(self, app: App, settings: Settings) -> None:
        self.policy = Policy.of(settings, is_async=app.has_async_task)
        self._app = app
        self._settings = settings
        self._seats = itertools.count()
        # Who has which seat, and who has which number.
        self._workers: dict[int, InlineWorker] = {}
        self._current = [self._worker(number) for number in range(settings.task_worker_num)]
        # While they run.
        self._lives: trio.Nursery | None = None
        self._events: Events

    @property
    def task_worker_num(self) -> int:
        """How many workers there are."""
        return len(self._current)

    # `Engine`

    def start(self, seat: int, jobs: Sequence[Job]) -> None:
        self._workers[seat].give(jobs)

    def revoke(self, seat: int, seq: int) -> bool:
        return self._workers[seat].take_back(seq)

    def cancel(self, seat: int, seq: int) -> None:
        self._workers[seat].cancel(seq)

    def kill(self, seat: int) -> None:
        self._workers[seat].end(_KILLED)

    def retire(self, seat: int) -> None:
        self._workers[seat].end(0)

    def answer_post(
        self,
        seat: int,
        seq: int,  # noqa: ARG002  # one task posts at a time
        answer: Answer,
        task_id: int,
        reason: str,
    ) -> None:
        self._workers[seat].answer = answer, task_id, reason

    def unsent_reports(self, seat: int) -> list[Report]:  # noqa: ARG002  # none is ever held
        return []

    def begun(self, seat: int) -> tuple[int, float]:
        return self._workers[seat].begun

    def begun_at(self, seat: int, seq: int) -> float:
        return self._workers[seat].begun_at.get(seq, math.inf)

    def heard_at(self, seat: int) -> float:  # noqa: ARG002  # reports are never late
        return 0.0

    def pid(self, seat: int) -> int | None:  # noqa: ARG002  # they are no processes
        return None

    def memory(self, seat: int) -> int | None:  # noqa: ARG002  # they have none of their own
        return None

    # Their life

    @asynccontextmanager
    async def running(self, events: Events) -> AsyncIterator[None]:
        """Have the workers run; ``on_task_worker_start`` and ``_stop`` are called as usual."""
        self._events = events
        for worker in self._current:
            self._open(worker)
        async with trio.open_nursery() as lives:
            self._lives = lives
            for worker in self._current:
                self._begin(worker)
            yield
            self._lives = None
            lives.cancel_scope.cancel()
        for worker in self._workers.values():
            self._close(worker)

    async def stack(self, task_id: int) -> str:  # noqa: ASYNC124  # others ask a process
        """Refused: tasks have no process of their own here."""
        raise RuntimeError(
            f"task {task_id} runs in the process that asks: it has no stack of its own"
        )

    async def reload(self) -> None:
        """Put a fresh worker in every place: ``on_task_worker_start`` and ``_stop`` are called.

        The code stays the same, since all of them are in this process. An old one ends what it has
        begun.

        Raises:
          AppError: if ``on_task_worker_start`` raises; then that one, and those after it, stay.
        """
        for number in range(len(self._current)):
            self._start_fresh(number)
        await trio.lowlevel.checkpoint()

    async def scale(self, number: int) -> None:
        """Have so many workers, as `LocalTaskWorkers.scale` does.

        Raises:
          AppError: if ``on_task_worker_start`` raises; those before it stay.
          TypeError: if ``number`` is no whole number.
          ValueError: if it is less than 1.
        """
        check_number(number)
        while len(self._current) > number:
            worker = self._current.pop()
            worker.is_leaving = True
            self._events.worker_dismissed(worker.number)
        while len(self._current) < number:
            self._start_fresh(len(self._current))
        await trio.lowlevel.checkpoint()

    # Inside

    def _worker(self, number: int) -> InlineWorker:
        return InlineWorker(next(self._seats), number, self._app, self._settings)

    def _open(self, worker: InlineWorker) -> None:
        on_start = self._app.on_task_worker_start
        if on_start is not None:
            try:
                on_start(worker.number)
            except Exception as exc:
                raise AppError(f"task worker {worker.number} cannot start: {exc!r}") from exc
        self._workers[worker.seat] = worker

    def _close(self, worker: InlineWorker) -> None:
        if self._app.on_task_worker_stop is not None:
            self._app.on_task_worker_stop(worker.number)

    def _start_fresh(self, number: int) -> None:
        if self._lives is None:
            return  # they are on their end
        worker = self._worker(number)
        self._open(worker)
        if number < len(self._current):
            self._current[number].is_leaving = True
        self._current[number : number + 1] = [worker]
        self._events.worker_seated(worker.seat, number)
        self._begin(worker)

    def _begin(self, worker: InlineWorker) -> None:
        assert self._lives is not None, "they run"
        # What it is handed before it runs waits for it.
        self._lives.start_soon(self._live, worker)
        self._events.worker_ready(worker.seat)

    async def _live(self, worker: InlineWorker) -> None:
        exit_code = await worker.keep_alive(self._events)
        del self._workers[worker.seat]
        if exit_code != _KILLED:
            self._close(worker)
