"""One worker of the engine without processes: a Trio task that lives and dies as one would."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from trioserver._tasks._async_loop import run_order_async
from trioserver._tasks._calls import is_in_task
from trioserver._tasks._payloads import check_size
from trioserver._tasks._running_orders import run_order
from trioserver._tasks._task import id_of_posted
from trioserver._tasks._wire import Answer, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioserver._app import App
    from trioserver._settings import Settings
    from trioserver._tasks._engine import Events
    from trioserver._tasks._job import Job
    from trioserver._tasks._wire import Order


class InlineWorker:
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
