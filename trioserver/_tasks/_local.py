"""The engine of local processes: numbered task workers, each started, watched and replaced here."""

from __future__ import annotations

import logging
import math
import signal
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from trioserver._errors import AppError
from trioserver._importing import UNGUARDED, UNGUARDED_EXIT
from trioserver._stopping import GRACE
from trioserver._tasks._booting import hold_interrupt
from trioserver._tasks._door import remove_stale_doors
from trioserver._tasks._policy import Policy
from trioserver._tasks._stacks import stack_of
from trioserver._tasks._worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from trioserver._app import App
    from trioserver._settings import Settings
    from trioserver._stopping import Stopping
    from trioserver._tasks._engine import Events
    from trioserver._tasks._job import Job
    from trioserver._tasks._statistics import TaskWorkerStatistics
    from trioserver._tasks._wire import Answer, Report

logger = logging.getLogger("trioserver.tasks")

_QUICK_DEATH: Final = 1.0
"""Seconds from readiness within which a death counts as one at start."""
_FIRST_BACKOFF: Final = 0.1
_MAX_BACKOFF: Final = 5.0


class LocalTaskWorkers:
    """Runs jobs in ``task_worker_num`` processes (an `Engine`).

    Args:
      app: Checked, and importable by name.
      settings: Those in force.
      stopping: How long the workers have to leave.
    """

    clock: Callable[[], float] = staticmethod(time.monotonic)

    def __init__(self, app: App, settings: Settings, stopping: Stopping) -> None:
        assert app.spec is not None, "App.check has seen to it"
        self.policy = Policy.of(settings, is_async=app.has_async_task)
        self._slots = [
            _Slot(number, app.spec, settings) for number in range(settings.task_worker_num)
        ]
        self._stopping = stopping
        self._is_async = app.has_async_task
        # While they run.
        self._events: Events | None = None

    @property
    def task_worker_num(self) -> int:
        """How many workers there are, or will be again in a moment."""
        return len(self._slots)

    # `Engine`

    def start(self, worker_id: int, jobs: Sequence[Job]) -> None:
        self._slots[worker_id].alive.start(jobs)

    def revoke(self, worker_id: int, seq: int) -> bool:
        return self._slots[worker_id].alive.revoke(seq)

    def cancel(self, worker_id: int, seq: int) -> None:
        self._slots[worker_id].alive.cancel(seq)

    def kill(self, worker_id: int) -> None:
        self._slots[worker_id].kill()

    def retire(self, worker_id: int) -> None:
        self._slots[worker_id].retire()

    def answer_post(
        self, worker_id: int, seq: int, answer: Answer, task_id: int, reason: str
    ) -> None:
        self._slots[worker_id].alive.answer_post(seq, task_id, answer, reason)

    def unsent_reports(self, worker_id: int) -> list[Report]:
        return self._slots[worker_id].alive.unsent_reports()

    def begun(self, worker_id: int) -> tuple[int, float] | None:
        return self._slots[worker_id].alive.begun()

    def begun_at(self, worker_id: int, seq: int) -> float:
        at = self._slots[worker_id].alive.begun_at(seq)
        return math.inf if at is None else at

    def heard_at(self, worker_id: int) -> float:
        return self._slots[worker_id].alive.heard_at

    def pid(self, worker_id: int) -> int | None:
        worker = self._slots[worker_id].worker
        return None if worker is None else worker.pid

    def memory(self, worker_id: int) -> int | None:
        worker = self._slots[worker_id].worker
        return None if worker is None else worker.memory()

    async def stack(self, task_id: int) -> str:
        """See `_workers.TaskWorkers.stack`."""
        if self._events is None:
            raise KeyError(f"no task {task_id} is running")
        return await stack_of(
            task_id, self._events.statistics, self._frames_of, is_async=self._is_async
        )

    async def _frames_of(self, worker: TaskWorkerStatistics) -> list[str]:
        for slot in self._slots:
            if slot.worker is not None and slot.worker.pid == worker.pid:
                return await slot.worker.frames()
        raise RuntimeError(f"task worker {worker.id} is being replaced")

    # Their lives

    @asynccontextmanager
    async def running(self, events: Events) -> AsyncIterator[None]:
        """Have the workers run; inside, all have been ready.

        On a regular exit they leave after ``on_task_worker_stop``, in the time that the stop has.

        Raises:
          AppError: if a worker cannot begin: the app does not import there, or it dies.
        """
        self._events = events
        remove_stale_doors()
        failures: list[AppError] = []
        async with trio.open_nursery() as lives:
            async with trio.open_nursery() as starting:
                await starting.start(hold_interrupt, [slot.booted for slot in self._slots])

                async def start(slot: _Slot) -> None:
                    try:
                        await lives.start(slot.keep_alive, events)
                    except AppError as exc:
                        failures.append(exc)
                        starting.cancel_scope.cancel()

                for slot in self._slots:
                    starting.start_soon(start, slot)
            if not failures:
                yield
                with self._stopping.for_a_stage() as stage:
                    await self._stop()
                if stage.cancelled_caught:
                    # An `on_task_worker_stop` that takes too long ends with its worker.
                    self._stopping.cut += sum(slot.worker is not None for slot in self._slots)
            lives.cancel_scope.cancel()
        if failures:
            raise failures[0]

    async def _stop(self) -> None:
        workers = [slot.worker for slot in self._slots if slot.worker is not None]
        for slot in self._slots:
            slot.leave()
        for worker in workers:
            await worker.wait_ended()


class _Slot:
    """One number of a task worker, and the process that has it now."""

    def __init__(self, number: int, spec: str, settings: Settings) -> None:
        self.worker: WorkerProcess | None = None
        self.booted = trio.Event()
        """Set when the first process has booted, or is dead."""
        self._number = number
        self._spec = spec
        self._settings = settings
        # When the process of now became ready, None before that.
        self._ready_at: float | None = None
        # Whether the process that has just died had begun a task.
        self._has_run = False
        # Why the process before it died at its start.
        self._cause: str | None = None
        # Whether its death is our doing, and no reason for a warning.
        self._is_killed = False
        # Whether it was told to leave for a fresh one.
        self._is_retired = False
        # Whether it was told to leave, and nobody is to take its place.
        self._is_leaving = False

    @property
    def alive(self) -> WorkerProcess:
        """The process; the dispatcher asks only between a worker's `worker_ready` and its end."""
        assert self.worker is not None
        return self.worker

    def kill(self) -> None:
        """Kill the process; another one takes its place."""
        self._is_killed = True
        self.alive.kill()

    def retire(self) -> None:
        """Have the process leave by itself, in its time; another one takes its place."""
        self._is_retired = True
        self.alive.stop(max(self._settings.max_wait_time, GRACE))

    def leave(self) -> None:
        """Have the process leave by itself, and the place stay empty."""
        self._is_leaving = True
        if self.worker is not None:
            self.worker.stop()

    async def keep_alive(
        self,
        events: Events,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep a process here until cancelled; ``started()`` when the first one is ready."""
        number = self._number
        quick_deaths = 0
        was_ready = False

        def on_ready() -> None:
            self._ready_at = trio.current_time()
            events.worker_ready(number)
            if not was_ready:
                task_status.started()

        while True:
            self._ready_at = None
            self._has_run = False
            self._is_killed = self._is_retired = False
            worker = WorkerProcess(
                number,
                self._spec,
                on_boot=self.booted.set,
                on_ready=on_ready,
                on_reports=lambda reports: events.reported(number, reports),
                on_posted=lambda seq, payload: events.posted(number, seq, payload),
                on_progress=lambda values: events.progressed(number, values),
                max_task_size=self._settings.max_task_size,
                task_concurrency=self._settings.task_concurrency,
            )
            self.worker = worker
            try:
                await worker.live()
            finally:
                self.booted.set()
                if self._ready_at is not None:
                    begun = worker.begun()
                    self._has_run = begun is None or begun[0] > 0
                    events.worker_died(number, worker.exit_code, begun)
                self.worker = None
                worker.close()
            if not was_ready and self._ready_at is None:
                raise AppError(_why_it_ended(worker), worker.start_failure or "")
            was_ready = True
            if self._is_leaving:
                if worker.exit_code:
                    logger.error(_why_it_ended(worker))
                return
            quick_deaths = quick_deaths + 1 if self._died_at_start(worker) else 0
            await self._back_off(worker, quick_deaths)

    def _died_at_start(self, worker: WorkerProcess) -> bool:
        if self._ready_at is None:
            return True
        # SIGKILL comes from outside, and says nothing about the app; nor does the death of a worker
        # that has begun a task: it was well until then, and others wait for it.
        was_meant = self._is_killed or self._is_retired or worker.exit_code == -signal.SIGKILL
        return (
            not was_meant
            and not self._has_run
            and trio.current_time() < self._ready_at + _QUICK_DEATH
        )

    async def _back_off(self, worker: WorkerProcess, quick_deaths: int) -> None:
        """Say why it ended, and wait if it keeps doing so at its start."""
        if not quick_deaths:
            self._cause = None
            if self._is_retired and not worker.exit_code:
                logger.info("task worker %d (pid %s) is recycled", self._number, worker.pid)
            elif not self._is_killed:
                logger.warning("%s; it is started again", _why_it_ended(worker))
            return
        seconds = min(_FIRST_BACKOFF * 2.0 ** min(quick_deaths - 1, 10), _MAX_BACKOFF)
        # One that keeps dying for the same reason says so once, not every few seconds for ever.
        cause = worker.start_failure or f"{worker.is_ready} {worker.exit_code}"
        logger.log(
            logging.DEBUG if cause == self._cause else logging.ERROR,
            "%s; it is started again in %.1f s, and after longer times if that goes on",
            _why_it_ended(worker),
            seconds,
            extra={"remote_traceback": worker.start_failure},
        )
        self._cause = cause
        await trio.sleep(seconds)


def _why_it_ended(worker: WorkerProcess) -> str:
    name = f"task worker {worker.worker_id}"
    if worker.start_failure is not None:
        return f"{name} cannot start: {worker.start_failure.rstrip().rpartition(chr(10))[2]}"
    when = "" if worker.is_ready else " while it was starting"
    code = worker.exit_code
    if code == UNGUARDED_EXIT and not worker.is_ready:
        return UNGUARDED
    how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return f"{name} (pid {worker.pid}) died{when} ({how})"
