"""The engine of local processes: numbered task workers, each started, watched and replaced here.

Changes of the workers, a reload or another number of them, happen one after the other. A number
passes from an old worker to its fresh one in one moment, when that is ready, so whatever ends a
change in between leaves every number with exactly one.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from trioserver._errors import AppError
from trioserver._tasks._booting import BOOT_TIME, hold_interrupt
from trioserver._tasks._door import remove_stale_doors
from trioserver._tasks._policy import Policy
from trioserver._tasks._slot import Slot, Start
from trioserver._tasks._stacks import stack_of
from trioserver._tasks._workers import check_number

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from trioserver._settings import Settings
    from trioserver._stopping import Stopping
    from trioserver._tasks._engine import Events
    from trioserver._tasks._job import Job
    from trioserver._tasks._statistics import TaskWorkerStatistics
    from trioserver._tasks._wire import Answer, Report

logger = logging.getLogger("trioserver.tasks")


class TaskApp(Protocol):
    """What is to be known of an app: the app itself, or somebody's notes of it."""

    @property
    def spec(self) -> str | None:
        """Where a task worker imports it from."""

    @property
    def has_async_task(self) -> bool:
        """Whether ``on_task`` is a coroutine function."""


class LocalTaskWorkers:
    """Runs jobs in ``task_worker_num`` processes (an `Engine`).

    Args:
      app: Checked, and importable by name.
      settings: Those in force.
      stopping: How long the workers have to leave.
    """

    clock: Callable[[], float] = staticmethod(time.monotonic)
    are_processes = True

    def __init__(self, app: TaskApp, settings: Settings, stopping: Stopping) -> None:
        assert app.spec is not None, "App.check has seen to it"
        self.policy = Policy.of(settings, is_async=app.has_async_task)
        self._spec = app.spec
        self._settings = settings
        self._stopping = stopping
        self._seats = itertools.count()
        # Who has which seat, from its start to its end; and who has which number.
        self._slots: dict[int, Slot] = {}
        self._current = [self._slot(number) for number in range(settings.task_worker_num)]
        # While the workers run.
        self._lives: trio.Nursery | None = None
        self._events: Events
        self._changes = trio.StrictFIFOLock()
        self._change = trio.CancelScope()
        self._is_async = app.has_async_task

    @property
    def task_worker_num(self) -> int:
        """How many workers there are, or will be again in a moment."""
        return len(self._current)

    # `Engine`

    def start(self, seat: int, jobs: Sequence[Job]) -> None:
        self._slots[seat].alive.start(jobs)

    def revoke(self, seat: int, seq: int) -> bool:
        return self._slots[seat].alive.revoke(seq)

    def cancel(self, seat: int, seq: int) -> None:
        self._slots[seat].alive.cancel(seq)

    def kill(self, seat: int) -> None:
        self._slots[seat].kill()

    def retire(self, seat: int) -> None:
        self._slots[seat].retire()

    def answer_post(self, seat: int, seq: int, answer: Answer, task_id: int, reason: str) -> None:
        self._slots[seat].alive.answer_post(seq, task_id, answer, reason)

    def unsent_reports(self, seat: int) -> list[Report]:
        return self._slots[seat].alive.unsent_reports()

    def begun(self, seat: int) -> tuple[int, float] | None:
        return self._slots[seat].alive.begun()

    def begun_at(self, seat: int, seq: int) -> float:
        at = self._slots[seat].alive.begun_at(seq)
        return math.inf if at is None else at

    def heard_at(self, seat: int) -> float:
        return self._slots[seat].alive.heard_at

    def pid(self, seat: int) -> int | None:
        slot = self._slots.get(seat)
        return None if slot is None or slot.worker is None else slot.worker.pid

    def memory(self, seat: int) -> int | None:
        slot = self._slots.get(seat)
        return None if slot is None or slot.worker is None else slot.worker.memory()

    async def stack(self, task_id: int) -> str:
        """See `_workers.TaskWorkers.stack`."""
        if self._lives is None:
            raise KeyError(f"no task {task_id} is running")
        return await stack_of(
            task_id, self._events.statistics, self._frames_of, is_async=self._is_async
        )

    async def _frames_of(self, worker: TaskWorkerStatistics) -> list[str]:
        for slot in self._slots.values():
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
        remove_stale_doors()
        self._events = events
        failure: AppError | None = None
        async with trio.open_nursery() as lives:
            self._lives = lives
            try:
                try:
                    await self._have_ready(self._current, partial(self._begin, lives))
                except AppError as exc:
                    failure = exc
                else:
                    yield
            finally:
                self._lives = None
                self._change.cancel()
            if failure is None:
                with self._stopping.for_a_stage() as stage:
                    await self._stop()
                if stage.cancelled_caught:
                    # An `on_task_worker_stop` that takes too long ends with its worker.
                    self._stopping.cut += sum(
                        slot.worker is not None for slot in self._slots.values()
                    )
            lives.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def reload(self) -> None:
        """Put a fresh worker in every place, one after the other, which imports the app anew.

        An old one ends what it has begun, however long that takes, and leaves then; this does not
        wait for it. Waits while another change of the workers goes on, and returns early where the
        pool stops. Where it is cancelled, or raises, some numbers have fresh workers, and all
        others the workers that they had.

        Raises:
          AppError: if a fresh worker cannot begin (see `running`); `AppError.remote_traceback` says
            where the app failed.
        """
        await self._make_change(self._reload)

    async def scale(self, number: int) -> None:
        """Have so many workers, for as long as the pool runs; further ones are ready on return.

        If there are to be fewer, the highest numbers go: their workers end what they have begun,
        and other tasks that only these may run end as `TaskCancelled`. Waits and returns early as
        `reload` does.

        Args:
          number: At least 1.

        Raises:
          AppError: if a further worker cannot begin; those that could stay.
          TypeError: if it is no whole number.
          ValueError: if it is less than 1.
        """
        check_number(number)
        await self._make_change(partial(self._scale, number))

    # Inside

    def _slot(self, number: int) -> Slot:
        return Slot(next(self._seats), number, self._spec, self._settings)

    async def _make_change(self, change: Callable[[trio.Nursery], Awaitable[None]]) -> None:
        async with self._changes:
            if self._lives is None:
                return
            with trio.CancelScope() as self._change:
                await change(self._lives)

    async def _reload(self, lives: trio.Nursery) -> None:
        logger.info("task workers are being reloaded")
        for number, slot in enumerate(self._current):
            if slot.is_up:
                await self._start_fresh(lives, number)
            else:
                # Its next process is a fresh one in any case.
                await self._have_ready([slot], Slot.start_now)
        old = sum(slot.has_old_tasks for slot in self._slots.values())
        logger.info(
            "task workers are reloaded: %d fresh ones, %d old ones still run tasks",
            len(self._current),
            old,
        )

    async def _scale(self, number: int, lives: trio.Nursery) -> None:
        before = len(self._current)
        while len(self._current) > number:
            slot = self._current.pop()
            slot.make_way()
            self._events.worker_dismissed(slot.number)
        while len(self._current) < number:
            await self._start_fresh(lives, len(self._current))
        if number != before:
            logger.info("there are %d task workers now, and were %d", number, before)

    async def _start_fresh(self, lives: trio.Nursery, number: int) -> None:
        """Have a fresh worker take ``number``; whoever has it goes on if that fails."""
        slot = self._slot(number)

        def take_number() -> None:
            if number < len(self._current):
                self._current[number].make_way()
            self._current[number : number + 1] = [slot]
            self._events.worker_seated(slot.seat, number)

        try:
            await self._have_ready([slot], partial(self._begin, lives, on_first=take_number))
        finally:
            if slot not in self._current:
                slot.make_way()

    async def _have_ready(self, slots: Sequence[Slot], begin: Callable[[Slot], None]) -> None:
        """Have a process at each of ``slots`` that begins now, and wait until all are ready.

        Raises:
          AppError: if one cannot.
        """
        starts: list[Start] = []
        with hold_interrupt():
            for slot in slots:
                starts.append(slot.next_start)
                begin(slot)
            with trio.move_on_after(BOOT_TIME):
                for start in starts:
                    await start.booted.wait()
        failures: list[AppError] = []
        async with trio.open_nursery() as starting:

            async def wait(start: Start) -> None:
                await start.over.wait()
                if start.failure is not None:
                    failures.append(start.failure)
                    starting.cancel_scope.cancel()

            for start in starts:
                starting.start_soon(wait, start)
        if failures:
            raise failures[0]

    def _begin(
        self, lives: trio.Nursery, slot: Slot, on_first: Callable[[], None] | None = None
    ) -> None:
        self._slots[slot.seat] = slot
        lives.start_soon(self._live, slot, on_first)

    async def _live(self, slot: Slot, on_first: Callable[[], None] | None) -> None:
        try:
            await slot.keep_alive(self._events, on_first)
        finally:
            del self._slots[slot.seat]

    async def _stop(self) -> None:
        workers = [slot.worker for slot in self._slots.values() if slot.worker is not None]
        for slot in self._slots.values():
            slot.leave()
        for worker in workers:
            await worker.wait_ended()
