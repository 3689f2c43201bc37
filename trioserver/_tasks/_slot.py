"""One seat of a task worker, and the process there: started, and followed by another one."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Final

import trio

from trioserver._deaths import BackOff, how_it_ended
from trioserver._errors import AppError
from trioserver._importing import UNGUARDED, UNGUARDED_EXIT
from trioserver._stopping import GRACE
from trioserver._tasks._worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioserver._settings import Settings
    from trioserver._tasks._engine import Events

logger = logging.getLogger("trioserver.tasks")

_QUICK_DEATH: Final = 1.0
"""Seconds from readiness within which a death counts as one at start."""


class Start:
    """One start of a process, and how it went."""

    def __init__(self) -> None:
        self.booted = trio.Event()
        """Set when the process is itself and no longer its interpreter's start, or is dead."""
        self.over = trio.Event()
        """Set when it is ready, or will not be."""
        self.failure: AppError | None = None
        """Why it will not be; None also when it was told to leave."""


class Slot:
    """One seat of a task worker, and the process there.

    Args:
      seat: By which the dispatcher knows it.
      number: By which users know it.
      spec: Where the processes find the app.
      settings: Those in force.
    """

    def __init__(self, seat: int, number: int, spec: str, settings: Settings) -> None:
        self.seat = seat
        self.number = number
        self.worker: WorkerProcess | None = None
        self.next_start = Start()
        """The one after that of now."""
        self._start = self.next_start
        self._spec = spec
        self._settings = settings
        self._life = trio.CancelScope()
        self._pause = trio.CancelScope()
        # When the process of now became ready, None before that.
        self._ready_at: float | None = None
        # Whether the process that has just died had begun a task.
        self._has_run = False
        self._back_off = BackOff()
        # Whether its death is our doing, and no reason for a warning.
        self._is_killed = False
        # Whether it was told to leave, by itself.
        self._is_retired = False
        # Whether it is to make room for one that is started later.
        self._is_outdated = False
        # Whether it was told to leave, and nobody is to take its place here.
        self._is_leaving = False
        # Whether that is since its number is another one's, or nobody's.
        self._has_made_way = False

    @property
    def alive(self) -> WorkerProcess:
        """The process; the dispatcher asks only between a worker's `worker_ready` and its end."""
        assert self.worker is not None
        return self.worker

    @property
    def is_up(self) -> bool:
        """Whether the process has been ready, and is not dead."""
        return self.worker is not None and self._ready_at is not None

    @property
    def has_old_tasks(self) -> bool:
        """Whether its number is not its own any more, and it ends what it has begun."""
        return self._has_made_way and self.is_up and not (self._is_retired or self._is_killed)

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
        self._is_leaving = self._is_retired = True
        if self.worker is not None:
            self.worker.stop()

    def make_way(self) -> None:
        """Let another one have the number, or nobody: the dispatcher retires the process in time.

        One that is not ready has nothing to end, and goes at once.
        """
        self._is_leaving = self._has_made_way = True
        if not self.is_up:
            self._life.cancel()

    def start_now(self) -> None:
        """Have no process that was started before this become ready, and wait for nothing.

        One that is up is on its end, and ends as it would.
        """
        self._pause.cancel()
        if self.worker is not None and not self.is_up:
            self._is_outdated = True
            self.worker.kill()

    async def keep_alive(self, events: Events, on_first: Callable[[], None] | None = None) -> None:
        """Keep a process here until cancelled, or told to leave, or the first start fails.

        Args:
          events: Hears of everything.
          on_first: Called when the first process is ready, before anybody else hears of that.
        """
        try:
            with self._life:
                await self._keep_alive(events, on_first)
        finally:
            for start in (self._start, self.next_start):
                start.booted.set()
                start.over.set()

    async def _keep_alive(self, events: Events, on_first: Callable[[], None] | None) -> None:
        seat = self.seat
        was_ready = False

        def on_ready() -> None:
            nonlocal was_ready
            if self._is_leaving:
                return  # it was late, and is on its end
            self._ready_at = trio.current_time()
            if not was_ready and on_first is not None:
                on_first()
            was_ready = True
            events.worker_ready(seat)
            self._start.over.set()

        while True:
            self._start, self.next_start = self.next_start, Start()
            self._ready_at = None
            self._has_run = False
            self._is_killed = self._is_retired = self._is_outdated = False
            worker = WorkerProcess(
                self.number,
                self._spec,
                on_boot=self._start.booted.set,
                on_ready=on_ready,
                on_reports=lambda reports: events.reported(seat, reports),
                on_posted=lambda seq, payload: events.posted(seat, seq, payload),
                on_progress=lambda values: events.progressed(seat, values),
                max_task_size=self._settings.max_task_size,
                task_concurrency=self._settings.task_concurrency,
            )
            self.worker = worker
            try:
                await worker.live()
            finally:
                self._start.booted.set()
                if self._ready_at is not None:
                    begun = worker.begun()
                    self._has_run = begun is None or begun[0] > 0
                    events.worker_died(seat, worker.exit_code, begun)
                self.worker = None
                worker.close()
            if self._is_leaving:
                self._say_farewell(worker)
                return
            if self._ready_at is None and not self._is_outdated:
                self._start.failure = AppError(_why_it_ended(worker), worker.start_failure or "")
            self._start.over.set()
            if not was_ready:
                return
            if not self._is_outdated:
                await self._wait_its_turn(worker)

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

    def _say_farewell(self, worker: WorkerProcess) -> None:
        if self._is_retired and not worker.exit_code:
            if self._has_made_way:
                logger.info("old task worker %d (pid %s) has left", self.number, worker.pid)
        elif not self._has_made_way:
            logger.error(_why_it_ended(worker))
        elif not self._is_killed:
            logger.warning("old %s", _why_it_ended(worker))

    async def _wait_its_turn(self, worker: WorkerProcess) -> None:
        """Say why it ended, and wait if it keeps doing so at its start."""
        if not self._died_at_start(worker):
            self._back_off.forget()
            if self._is_retired and not worker.exit_code:
                logger.info("task worker %d (pid %s) is recycled", self.number, worker.pid)
            elif not self._is_killed:
                logger.warning("%s; it is started again", _why_it_ended(worker))
            return
        cause = worker.start_failure or f"{worker.is_ready} {worker.exit_code}"
        why = _why_it_ended(worker)
        seconds = self._back_off.seconds_after(logger, why, cause, worker.start_failure)
        with trio.move_on_after(seconds) as self._pause:
            await trio.sleep_forever()


def _why_it_ended(worker: WorkerProcess) -> str:
    name = f"task worker {worker.worker_id}"
    if worker.start_failure is not None:
        return f"{name} cannot start: {worker.start_failure.rstrip().rpartition(chr(10))[2]}"
    when = "" if worker.is_ready else " while it was starting"
    code = worker.exit_code
    if code == UNGUARDED_EXIT and not worker.is_ready:
        return UNGUARDED
    return f"{name} (pid {worker.pid}) died{when} ({how_it_ended(code)})"
