"""What is late, stuck or slow among the jobs that workers have in hand.

A look costs something, so it is taken only when it can find something: `Worker.due_at` is a moment
before which no limit of time can be over, kept without knowing when jobs have begun. The look then
reads that from the flight recorder, and finds the next such moment. Rules:

1. The time of a run counts from its begin. A job that has not begun at a look has all of it left,
   and may begin right after the look; so the next one comes when it would be late then.
2. What is finished and not sent is fetched first: it is not late, whoever was slow to hear of it.
3. A worker that begins nothing of what it has is stuck, by SIGSTOP for example. It is given up at
   the second look that finds it so: the first one may come late itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import attrs

from trioserver._tasks._run_times import WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trioserver._tasks._books import Worker
    from trioserver._tasks._engine import Engine
    from trioserver._tasks._job import Job

TAKE_UP: Final = 2.5
"""Seconds from one look at a worker that begins nothing to the next one."""
_MAX_LOOKS: Final = 9
"""Doublings of the time between two looks at a worker that makes no progress: to a second."""


@attrs.frozen
class Found:
    """What a look has found."""

    is_slow: bool = False
    """What it runs is taking long, so what lies behind that had better run elsewhere."""
    is_stuck: bool = False
    """It begins nothing."""
    late: tuple[Job, ...] = ()
    """Jobs whose time to run is over."""
    must_die: bool = False
    """A job that was asked to end has not done so in time."""


class Watch:
    """Looks after workers.

    Args:
      engine: Tells what they do.
      clock: The time.
      set_alarm: Asks for a look at a time.
    """

    def __init__(
        self, engine: Engine, clock: Callable[[], float], set_alarm: Callable[[float], None]
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._set_alarm = set_alarm

    def handed(self, worker: Worker, jobs: Sequence[Job]) -> None:
        """The worker has got ``jobs``."""
        soonest = TAKE_UP
        for job in jobs:
            timeout = job.options.timeout
            soonest = min(soonest, timeout)
        self._be_due(worker, self._clock() + soonest)
        if worker.has_ahead and not worker.settled:
            self._set_alarm(worker.heard_at + WINDOW)

    def progressed(self, worker: Worker) -> None:
        """The worker has reported."""
        now = self._clock()
        worker.progressed(now)
        if worker.handed:
            self._be_due(worker, now + TAKE_UP)
            if worker.has_ahead:
                self._set_alarm(worker.heard_at + WINDOW)

    def ends_by(self, worker: Worker, job: Job, at: float) -> None:
        """The worker was asked to end ``job``, and must have done so by then."""
        worker.ending[job.seq] = at
        self._be_due(worker, at)

    def is_worth_a_look(self, worker: Worker, now: float) -> bool:
        """Whether a look can find something."""
        if not worker.ready or not worker.handed:
            worker.due_at = math.inf
            return False
        if now >= worker.due_at:
            return True
        self._set_alarm(worker.due_at)
        return self._may_be_slow(worker, now)

    def look(self, worker: Worker, now: float) -> Found:
        """See what is wrong with a worker; what it had finished has been taken."""
        if not worker.handed:
            worker.due_at = math.inf
            return Found()
        begun = self._engine.begun(worker.id)
        is_slow = self._may_be_slow(worker, now) and self._is_slow(worker, now, begun)
        if now < worker.due_at:
            return Found(is_slow)
        worker.due_at = math.inf
        if begun is not None and begun[0] < worker.first:
            return self._look_at_unbegun(worker, now, is_slow)
        late = []
        due = math.inf
        for job in worker.handed.values():
            timeout = job.options.timeout
            if job.verdict is not None or timeout == math.inf:
                continue
            if begun is not None and job.seq > begun[0]:
                due = min(due, now + max(timeout, WINDOW))
            else:
                deadline = self._began(worker, job, begun) + timeout
                if now >= deadline:
                    late.append(job)
                else:
                    due = min(due, deadline)
        overdue = [at for at in worker.ending.values() if now >= at]
        due = min(due, *worker.ending.values(), math.inf)
        if due != math.inf and not overdue:
            self._be_due(worker, due)
        return Found(is_slow, late=tuple(late), must_die=bool(overdue))

    # Inside

    def _be_due(self, worker: Worker, at: float) -> None:
        if at < worker.due_at:
            worker.due_at = at
            self._set_alarm(at)

    def _began(self, worker: Worker, job: Job, begun: tuple[int, float] | None) -> float:
        """When ``job`` has begun, which it has or may have."""
        if begun is None:  # the page is spoilt, and the worker's last report is all that we know
            return worker.heard_at
        return self._engine.begun_at(worker.id, job.seq)

    def _look_at_unbegun(self, worker: Worker, now: float, is_slow: bool) -> Found:  # noqa: FBT001
        """See to a worker that has begun nothing of what it has."""
        if now < worker.heard_at + TAKE_UP:
            due = worker.heard_at + TAKE_UP
        elif worker.give_up_at == math.inf:
            due = worker.give_up_at = now + TAKE_UP
        elif now < worker.give_up_at:
            due = worker.give_up_at
        else:
            return Found(is_slow, is_stuck=True)
        shortest = min(job.options.timeout for job in worker.handed.values())
        self._be_due(worker, min(due, now + max(shortest, WINDOW)))
        return Found(is_slow)

    def _may_be_slow(self, worker: Worker, now: float) -> bool:
        """Whether it has made no progress for a while, with more in hand than it can run."""
        if worker.settled or not worker.has_ahead:
            return False
        due = max(worker.heard_at + WINDOW, worker.look_at)
        if now < due:
            self._set_alarm(due)
            return False
        return True

    def _is_slow(self, worker: Worker, now: float, begun: tuple[int, float] | None) -> bool:
        # One that has not run for that long yet may still end so quickly that its report stays
        # behind the next one, and nobody would look.
        if begun is None or begun[0] != worker.last_to_run or now < begun[1] + WINDOW:
            # One that was stopped is looked at less and less often.
            worker.look_at = now + WINDOW * 2**worker.looks
            worker.looks = min(worker.looks + 1, _MAX_LOOKS)
            self._set_alarm(worker.look_at)
            return False
        worker.settled = True
        return True
