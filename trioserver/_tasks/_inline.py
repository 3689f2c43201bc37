"""An engine without processes: jobs run in the process, and the thread, of whoever tests them."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from trioserver._errors import AppError
from trioserver._tasks._inside import run_order

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from trioserver._app import App
    from trioserver._tasks._engine import Events
    from trioserver._tasks._inside import OnTask
    from trioserver._tasks._job import Job
    from trioserver._tasks._wire import Report


class InlineTaskWorkers:
    """Task workers that are Trio tasks, for tests under `trio.testing.MockClock` (an `Engine`).

    Data and results still go through pickle both ways, and everything that is said about order,
    completions and errors holds. A task runs to its end before anything else does, so it takes no
    time by Trio's clock, and it cannot be killed.

    Args:
      app: Whose ``on_task`` runs.
      task_worker_num: How many.
    """

    clock: Callable[[], float] = staticmethod(trio.current_time)

    def __init__(self, app: App, task_worker_num: int) -> None:
        self._app = app
        self._workers = [_InlineWorker(number) for number in range(task_worker_num)]

    @property
    def task_worker_num(self) -> int:
        """How many workers there are."""
        return len(self._workers)

    # `Engine`

    def start(self, worker_id: int, jobs: Sequence[Job]) -> None:
        self._workers[worker_id].give(jobs)

    def revoke(self, worker_id: int, seq: int) -> bool:
        return self._workers[worker_id].take_back(seq)

    def kill(self, worker_id: int) -> None:
        """Nothing: whatever has begun has ended by the time that anyone can ask for this."""

    def unsent_reports(self, worker_id: int) -> list[Report]:  # noqa: ARG002  # none is ever held
        return []

    def begun(self, worker_id: int) -> tuple[int, float]:
        return self._workers[worker_id].begun

    # Their life

    @asynccontextmanager
    async def running(self, events: Events) -> AsyncIterator[None]:
        """Have the workers run; ``on_task_worker_start`` and ``_stop`` are called as usual."""
        app = self._app
        numbers = range(self.task_worker_num)
        for number in numbers:
            if app.on_task_worker_start is not None:
                try:
                    app.on_task_worker_start(number)
                except Exception as exc:
                    raise AppError(f"task worker {number} cannot start: {exc!r}") from exc
        async with trio.open_nursery() as nursery:
            assert app.on_task is not None, "App.check has seen to it"
            for worker in self._workers:
                nursery.start_soon(worker.run, app.on_task, events)
                events.worker_ready(worker.number)
            yield
            nursery.cancel_scope.cancel()
        for number in numbers:
            if app.on_task_worker_stop is not None:
                app.on_task_worker_stop(number)


class _InlineWorker:
    def __init__(self, number: int) -> None:
        self.number = number
        self.begun = (0, 0.0)
        self._jobs: deque[Job] = deque()
        self._given = trio.Event()

    def give(self, jobs: Sequence[Job]) -> None:
        self._jobs.extend(jobs)
        self._given.set()

    def take_back(self, seq: int) -> bool:
        for job in self._jobs:
            if job.seq == seq:
                self._jobs.remove(job)
                return True
        return False

    async def run(self, on_task: OnTask, events: Events) -> None:
        while True:
            if not self._jobs:
                self._given = trio.Event()
                await self._given.wait()
                continue
            job = self._jobs.popleft()
            begun = trio.current_time()
            self.begun = (job.seq, begun)
            status, body = run_order(
                on_task, self.number, job.id, job.attempt, job.kind, job.payload
            )
            ran = trio.current_time() - begun
            events.reported(self.number, [(job.seq, status, begun, ran, body)])
            await trio.lowlevel.checkpoint()
