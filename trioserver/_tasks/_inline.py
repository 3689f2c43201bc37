"""An engine without processes: jobs run in the process, and the thread, of whoever tests them."""

from __future__ import annotations

import itertools
import math
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from trioserver._errors import AppError
from trioserver._tasks._async_loop import run_order_async
from trioserver._tasks._calls import is_in_task
from trioserver._tasks._payloads import check_size
from trioserver._tasks._policy import Policy
from trioserver._tasks._running_orders import run_order
from trioserver._tasks._task import id_of_posted
from trioserver._tasks._wire import Answer, Kind
from trioserver._tasks._workers import check_number

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from trioserver._app import App
    from trioserver._settings import Settings
    from trioserver._tasks._engine import Events
    from trioserver._tasks._job import Job
    from trioserver._tasks._wire import Order, Report

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

    def __init__(self, app: App, settings: Settings) -> None:
        self.policy = Policy.of(settings, is_async=app.has_async_task)
        self._app = app
        self._settings = settings
        self._seats = itertools.count()
        # Who has which seat, and who has which number.
        self._workers: dict[int, _InlineWorker] = {}
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

    def _worker(self, number: int) -> _InlineWorker:
        return _InlineWorker(next(self._seats), number, self._app, self._settings)

    def _open(self, worker: _InlineWorker) -> None:
        on_start = self._app.on_task_worker_start
        if on_start is not None:
            try:
                on_start(worker.number)
            except Exception as exc:
                raise AppError(f"task worker {worker.number} cannot start: {exc!r}") from exc
        self._workers[worker.seat] = worker

    def _close(self, worker: _InlineWorker) -> None:
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

    def _begin(self, worker: _InlineWorker) -> None:
        assert self._lives is not None, "they run"
        # What it is handed before it runs waits for it.
        self._lives.start_soon(self._live, worker)
        self._events.worker_ready(worker.seat)

    async def _live(self, worker: _InlineWorker) -> None:
        exit_code = await worker.keep_alive(self._events)
        del self._workers[worker.seat]
        if exit_code != _KILLED:
            self._close(worker)


class _InlineWorker:
    """One worker, and what its running tasks can do (a `TaskLink`)."""

    def __init__(self, seat: int, number: int, app: App, settings: Settings) -> None:
        assert app.on_task is not None, "App.check has seen to it"
        self.seat = seat
        self.number = number
        self.is_leaving = False
        self.begun = (0, 0.0)
        self.begun_at: dict[int, float] = {}
        self.answer = (Answer.CLOSED, 0, "")
        self._on_task = app.on_task
        self._is_async = app.has_async_task
        self._concurrency = settings.task_concurrency if self._is_async else 1
        self._max_task_size = settings.max_task_size
        self._jobs: deque[Job] = deque()
        self._scopes: dict[int, trio.CancelScope] = {}
        # Set at whatever may let it go on.
        self._changed = trio.Event()
        self._exit_code: int | None = None
        self._events: Events

    # What the engine does

    def give(self, jobs: Sequence[Job]) -> None:
        self._jobs.extend(jobs)
        self._changed.set()

    def take_back(self, seq: int) -> bool:
        for job in self._jobs:
            if job.seq == seq:
                self._jobs.remove(job)
                return True
        return False

    def cancel(self, seq: int) -> None:
        if seq in self._scopes:
            self._scopes[seq].cancel()

    def end(self, exit_code: int) -> None:
        """End as a process would: with what it runs, and to be replaced by a fresh one."""
        self._exit_code = exit_code
        for scope in self._scopes.values():
            scope.cancel()
        self._changed.set()

    # `TaskLink`

    def progress(self, seq: int, body: bytes) -> bool:
        if seq not in self.begun_at:
            return False
        self._events.progressed(self.seat, [(seq, body)])
        return True

    def post(self, seq: int, body: bytes) -> int | None:
        if seq not in self.begun_at:
            return None
        check_size(body, "the data", self._max_task_size)
        self._events.posted(self.seat, seq, body)
        answer, task_id, reason = self.answer
        return id_of_posted(answer, task_id, reason)

    # Its life

    async def keep_alive(self, events: Events) -> int:
        """Live and be replaced, until cancelled or told to leave: the exit code then."""
        self._events = events
        is_in_task.set(True)
        while True:
            await self._live()
            assert self._exit_code is not None
            begun, exit_code = self.begun, self._exit_code
            self._exit_code = None
            events.worker_died(self.seat, exit_code, begun)
            self.begun = (0, 0.0)
            self.begun_at.clear()
            self._jobs.clear()
            if not self.is_leaving:
                await trio.lowlevel.checkpoint()
            if self.is_leaving:
                return exit_code
            events.worker_ready(self.seat)

    async def _live(self) -> None:
        async with trio.open_nursery() as tasks:
            while self._exit_code is None:
                if not self._jobs or len(self.begun_at) >= self._concurrency:
                    self._changed = trio.Event()
                    await self._changed.wait()
                    continue
                job = self._jobs.popleft()
                now = trio.current_time()
                self.begun = (job.seq, now)
                self.begun_at[job.seq] = now
                order = (job.seq, job.id, job.attempt, job.kind, job.payload)
                if self._is_async and job.kind == Kind.TASK:
                    self._scopes[job.seq] = trio.CancelScope()
                    tasks.start_soon(self._run_async, order, now)
                else:
                    self._report(
                        order,
                        now,
                        *run_order(self._on_task, order, self.number, self, self._max_task_size),
                    )
                    await trio.lowlevel.checkpoint()

    async def _run_async(self, order: Order, begun: float) -> None:
        scope = self._scopes[order[0]]
        answer = await run_order_async(
            self._on_task, order, self.number, self, self._max_task_size, scope
        )
        del self._scopes[order[0]]
        if self._exit_code is None:  # else it dies with its worker
            self._report(order, begun, *answer)

    def _report(self, order: Order, begun: float, status: int, body: bytes) -> None:
        seq = order[0]
        ran = trio.current_time() - begun
        del self.begun_at[seq]
        self._events.reported(self.seat, [(seq, status, begun, ran, body)])
        self._changed.set()
