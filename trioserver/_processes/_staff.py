"""Keeps an event worker at every number: starts them, replaces those that die, and reloads.

Rules:

1. At the start, one that dies before it was ever ready ends everything, with its reason. Later it
   is started again, after longer and longer times if that goes on.
2. Whoever takes over is ready before the other one stops accepting, so nobody is ever refused.
3. One process at a number is the current one; old ones beside it leave in their own time.
"""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Final

import trio

from trioserver._deaths import BackOff, how_it_ended
from trioserver._errors import AppError
from trioserver._logs import log_app_error
from trioserver._processes._event_worker import EventWorker
from trioserver._processes._room import MAX_SEATS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioserver._net._listeners import Listener
    from trioserver._processes._event_worker import Manager
    from trioserver._processes._guest import Desk
    from trioserver._processes._plan import Plan
    from trioserver._processes._room import Room
    from trioserver._stopping import Stopping

logger = logging.getLogger("trioserver.manager")

_QUICK_DEATH: Final = 1.0
"""Seconds from readiness within which a death counts as one at start."""
_RECYCLE_AGAIN: Final = 10.0
"""Seconds until another one is started to take over, if the last one could not."""
_ANSWER_TIME: Final = 1.0
"""Seconds for which one that does not answer is waited for: beyond the deadline of a stop, and
when it was told to accept no more."""
_LAST_TIME: Final = 12.0
"""The same for one that answers: it has completions to deliver, and says `Stopping` how long."""


class _Place:
    """A number, and the process that has it now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: EventWorker | None = None
        self.back_off = BackOff()
        # Held while another process is started here.
        self.changing = trio.StrictFIFOLock()
        # Whether the current one has asked to be replaced.
        self.is_recycled = False


class Staff:
    """The event workers of a server.

    Args:
      plan: What they serve; replaced by a reload.
      listeners: Bound sockets.
      desk: Has their tasks run; None without task workers.
      room: What all processes share.
      stopping: How the server ends.
      manager: Does what they ask.
      nursery: Where they live.
    """

    def __init__(
        self,
        plan: Plan,
        listeners: Sequence[Listener],
        desk: Desk | None,
        room: Room,
        stopping: Stopping,
        manager: Manager,
        nursery: trio.Nursery,
    ) -> None:
        self.plan = plan
        self._listeners = listeners
        self._desk = desk
        self._room = room
        self._stopping = stopping
        self._manager = manager
        self._nursery = nursery
        self._places = [_Place(number) for number in range(plan.settings.worker_num)]
        self._workers: dict[int, EventWorker] = {}
        # Before it, a death is the end of the start.
        self._has_started = False
        self._is_over = False
        # The first one that could not start at the start.
        self._failed: EventWorker | None = None

    # What the manager asks

    @property
    def workers(self) -> list[EventWorker]:
        """All processes, old ones too, by number and age."""
        return sorted(self._workers.values(), key=lambda worker: worker.number)

    def current(self, number: int) -> EventWorker | None:
        """Who has ``number`` now."""
        return self._places[number].current

    async def start(self) -> None:
        """Start all; they are ready, and do not accept yet.

        Raises:
          AppError: if one cannot start.
        """
        async with trio.open_nursery() as starting:
            for place in self._places:
                starting.start_soon(self._start, place)
        if self._failed is not None:
            self._check(self._failed)

    def accept(self) -> None:
        """Have all of them accept: the sockets listen."""
        self._has_started = True
        for place in self._places:
            if place.current is None:  # it has died since it was ready
                self._nursery.start_soon(self._fill, place)
            else:
                place.current.accept()

    async def reload(self) -> None:
        """Replace all, one after the other.

        Raises:
          AppError: if one cannot start; its number and those after it keep their old ones.
        """
        for place in self._places:
            await self._replace(place)

    def recycle(self, worker: EventWorker) -> None:
        """Replace one that has asked for it."""
        place = self._places[worker.number]
        if place.current is worker and not place.is_recycled and not self._is_over:
            place.is_recycled = True
            self._nursery.start_soon(self._recycle, place, worker)

    async def stop(self) -> None:
        """Have all leave, and wait until they have; who takes too long is killed."""
        self._is_over = True
        for worker in self.workers:
            worker.stop()
        with self._stopping.until_deadline():
            await self._wait_none()
        for worker in self.workers:
            worker.signs_of_life.probe()
        with trio.move_on_after(_ANSWER_TIME):
            await self._wait_none()
        for worker in self.workers:
            if worker.signs_of_life.is_silent:
                logger.error("%s does not answer: it is killed", worker)
                self._cut(worker)
        with trio.CancelScope(deadline=self._stopping.deadline + _LAST_TIME):
            await self._wait_none()
        for worker in self.workers:
            logger.error("%s has not left in time: it is killed", worker)
            self._cut(worker)
        await self._wait_none()

    # Inside

    async def _start(self, place: _Place) -> None:
        worker = place.current = self._new(place)
        await worker.ready.wait()
        if not worker.was_ready and self._failed is None:
            self._failed = worker
            for other in self.workers:
                other.kill()

    def _cut(self, worker: EventWorker) -> None:
        self._stopping.cut += 1
        worker.kill()

    async def _wait_none(self) -> None:
        for worker in self.workers:
            await worker.ended.wait()

    def _new(self, place: _Place) -> EventWorker:
        seat = next((seat for seat in range(MAX_SEATS) if seat not in self._workers), None)
        if seat is None:
            raise AppError(f"no further event worker: {MAX_SEATS} are there, most of them old ones")
        worker = EventWorker(
            place.number,
            seat,
            self.plan,
            self._listeners,
            self._desk,
            self._room,
            self._manager,
        )
        self._workers[seat] = worker
        self._nursery.start_soon(self._live, place, worker)
        return worker

    async def _live(self, place: _Place, worker: EventWorker) -> None:
        try:
            await worker.live()
        finally:
            del self._workers[worker.seat]
            self._stopping.cut += worker.cut
        self._mourn(worker)
        if place.current is not worker:
            return
        place.current = None
        if self._is_over or not self._has_started:
            return
        await self._back_off(place, worker)
        await self._fill(place)

    async def _fill(self, place: _Place) -> None:
        """Start one where none is, unless somebody else does."""
        async with place.changing:
            if place.current is None and not self._is_over:
                fresh = place.current = self._new(place)
                await fresh.ready.wait()
                if fresh.was_ready:
                    fresh.accept()

    def _mourn(self, worker: EventWorker) -> None:
        """Say why it is dead, and what that has cost."""
        if worker.abandoned:
            logger.error("%s has left %d tasks of which nobody will hear", worker, worker.abandoned)

    async def _back_off(self, place: _Place, worker: EventWorker) -> None:
        if worker.has_left and not worker.exit_code:
            place.back_off.forget()
            return
        lived = trio.current_time() - worker.ready_at if worker.was_ready else 0.0
        # SIGKILL comes from outside, and says nothing about the app.
        is_quick = not worker.was_ready or (
            lived < _QUICK_DEATH and worker.exit_code != -signal.SIGKILL
        )
        if not is_quick:
            place.back_off.forget()
            logger.warning("%s; it is started again", why_it_died(worker))
            return
        traceback = worker.failure[1] if worker.failure else ""
        cause = traceback if worker.failure else str(worker.exit_code)
        why = why_it_died(worker)
        await trio.sleep(place.back_off.seconds_after(logger, why, cause, traceback))

    async def _recycle(self, place: _Place, worker: EventWorker) -> None:
        try:
            while place.current is worker and not self._is_over:
                try:
                    await self._replace(place)
                except AppError as exc:
                    if self._is_over:  # as when a whole control group is told to end
                        return
                    log_app_error(logger, f"{worker} is not recycled yet", exc)
                    with trio.move_on_after(_RECYCLE_AGAIN):
                        await worker.ended.wait()
                else:
                    if place.current is not worker:
                        logger.info("%s is recycled", worker)
        finally:
            place.is_recycled = False

    async def _replace(self, place: _Place) -> None:
        """Put a fresh process in the place of the current one."""
        async with place.changing:
            if self._is_over:  # since it was this one's turn
                return
            fresh = self._new(place)
            await fresh.ready.wait()
            self._check(fresh)
            if self._is_over:
                return
            old, place.current = place.current, fresh
            fresh.accept()
            if old is not None:
                old.retire()
                # Then a reload that is over means that nobody gets to the old code any more.
                with trio.move_on_after(_ANSWER_TIME):
                    await old.accepts_no_more.wait()

    def _check(self, worker: EventWorker) -> None:
        if not worker.was_ready:
            traceback = worker.failure[1] if worker.failure else ""
            raise AppError(why_it_died(worker), traceback)


def why_it_died(worker: EventWorker) -> str:
    """In words."""
    if worker.failure is not None:
        return worker.failure[0]
    when = "" if worker.was_ready else " while it was starting"
    return f"{worker} died{when} ({how_it_ended(worker.exit_code)})"
