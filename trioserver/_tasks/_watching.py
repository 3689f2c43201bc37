"""What is late, stuck or slow among the jobs that workers have in hand.

A look costs something, so it is taken only when it can find something: `Worker.due_at` is a moment
before which no limit of time can be over, kept without knowing when jobs have begun. The look then
reads that from the flight recorder, and finds the next such moment. Rules:

1. The time of a run counts from its begin. A job that has not begun at a look has all of it left,
   and may begin right after the look; so the next one comes when it would be late then.
2. What is finished and not sent is fetched first: it is not late, whoever was slow to hear of it.
3. A worker that owes reports and runs nothing is stuck, by SIGSTOP for example. It is given up at
   the second look that finds it so: the first one may come late itself.
4. A worker that runs some of its jobs and begins no further ones, though it could, is held up by
   one of them. It keeps those that have begun, and gets nothing for a while. So does one that
   begins nothing at all, by SIGSTOP or for want of a processor, if another one is free.
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
_LONGEST: Final = 60.0
"""Seconds between two looks at a worker that runs a task without a limit."""
HELD_UP: Final = 0.05
"""Seconds in which a worker with a free slot begins what it is handed, unless it is held up."""
_MAX_HOLD: Final = 1.0
_MAX_LOOKS: Final = 9
"""Doublings of the time between two looks at a worker that makes no progress: to a second."""


@attrs.frozen
class Found:
    """What a look has found."""

    is_slow: bool = False
    """What it runs is taking long, so what lies behind that had better run elsewhere."""
    is_stuck: bool = False
    """It owes reports, runs nothing, and says nothing."""
    is_held: bool = False
    """It begins nothing further beside what it runs."""
    is_asleep: bool = False
    """It begins nothing of what it has."""
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
        soonest = min([job.options.timeout for job in jobs])
        self._be_due(worker, self._clock() + min(soonest, TAKE_UP))
        if worker.has_ahead and not worker.settled:
            self._set_alarm(worker.heard_at + WINDOW)
        self._probe(worker)

    def progressed(self, worker: Worker) -> None:
        """The worker has reported."""
        now = self._clock()
        worker.progressed(now)
        if worker.owes_reports:
            self._be_due(worker, now + TAKE_UP)
        if worker.has_ahead:
            self._set_alarm(worker.heard_at + WINDOW)
        if worker.slots > 1 and worker.handed:
            self._probe(worker)

    def ends_by(self, worker: Worker, job: Job, at: float) -> None:
        """The worker was asked to end ``job``, and must have done so by then."""
        worker.ending[job.seq] = at
        self._be_due(worker, at)

    def reports_soon(self, worker: Worker) -> None:
        """The worker has ended a job, and must report that."""
        self._be_due(worker, self._clock() + TAKE_UP)

    def has_ended(self, worker: Worker, job: Job) -> bool:
        """Whether ``job`` is known to have ended, and only its report is missing."""
        begun = self._engine.begun(worker.seat)
        return (
            begun is not None
            and job.seq <= begun[0]
            and self._engine.begun_at(worker.seat, job.seq) == math.inf
        )

    def is_worth_a_look(self, worker: Worker, now: float) -> bool:
        """Whether a look can find something."""
        if not worker.ready or not worker.owes_reports:
            worker.due_at = math.inf
            return False
        if now >= min(worker.due_at, worker.probe_at):
            return True
        self._set_alarm(min(worker.due_at, worker.probe_at))
        return self._may_be_slow(worker, now)

    def look(self, worker: Worker, now: float) -> Found:
        """See what is wrong with a worker; what it had finished has been taken."""
        begun = self._engine.begun(worker.seat)
        is_slow = self._may_be_slow(worker, now) and self._is_slow(worker, now, begun)
        is_held = is_asleep = False
        if now >= worker.probe_at:
            is_held, is_asleep = self._look_for_begun(worker, now, begun)
        if now < worker.due_at:
            self._set_alarm(min(worker.due_at, worker.probe_at))
            return Found(is_slow, is_held=is_held, is_asleep=is_asleep)
        worker.due_at = math.inf
        found, due = self._look_at_limits(worker, now, begun)
        if due != math.inf and not found.must_die:
            self._be_due(worker, due)
        if worker.probe_at != math.inf:
            self._set_alarm(worker.probe_at)
        return attrs.evolve(found, is_slow=is_slow, is_held=is_held, is_asleep=is_asleep)

    def hold(self, worker: Worker) -> None:
        """Have it get nothing for a while, which is longer each time."""
        worker.is_held = True
        self._probe_later(worker, self._clock())

    # Inside

    def _look_at_limits(
        self, worker: Worker, now: float, begun: tuple[int, float] | None
    ) -> tuple[Found, float]:
        """What is over its time, and when the next may be."""
        late = []
        due = math.inf
        runs = must_die = is_stuck = False
        for job in worker.handed.values():
            timeout = job.options.timeout
            if begun is not None and job.seq > begun[0]:
                due = min(due, now + max(timeout, WINDOW))
                continue
            at = self._began(worker, job, begun)
            if at == math.inf:
                continue  # it has ended, in time
            runs = True
            if job.seq in worker.ending:
                must_die = must_die or now >= worker.ending[job.seq]
                due = min(due, worker.ending[job.seq])
            elif job.verdict is None and now >= at + timeout:
                late.append(job)
            elif job.verdict is None:
                # Without a limit it may end at any time, and then have to be waited for.
                due = min(due, at + timeout, now + min(max(TAKE_UP, now - at), _LONGEST))
        if not runs and worker.owes_reports:
            is_stuck, again = self._see_if_stuck(worker, now)
            due = min(due, again)
        return Found(is_stuck=is_stuck, late=tuple(late), must_die=must_die), due

    def _be_due(self, worker: Worker, at: float) -> None:
        if at < worker.due_at:
            worker.due_at = at
            self._set_alarm(at)

    def _began(self, worker: Worker, job: Job, begun: tuple[int, float] | None) -> float:
        """When ``job`` has begun, which it has or may have."""
        if begun is None:  # the page is spoilt, and the worker's last report is all that we know
            return worker.heard_at
        return self._engine.begun_at(worker.seat, job.seq)

    def _see_if_stuck(self, worker: Worker, now: float) -> tuple[bool, float]:
        """Whether to give up a worker that runs nothing, and when to look again if not."""
        heard_at = max(worker.heard_at, self._engine.heard_at(worker.seat))
        if now < heard_at + TAKE_UP:
            worker.give_up_at = math.inf
            return False, heard_at + TAKE_UP
        if now < worker.give_up_at < math.inf:
            return False, worker.give_up_at
        is_stuck = worker.give_up_at != math.inf
        worker.give_up_at = now + TAKE_UP
        return is_stuck, worker.give_up_at

    def _probe(self, worker: Worker) -> None:
        """See in a while whether the worker begins what it can."""
        if worker.is_held:
            return
        now = self._clock()
        # One that is over was not looked at, because there was nothing to see.
        if worker.probe_at == math.inf or worker.probe_at <= now:
            worker.probe_at = now + HELD_UP
            worker.probe_begun = -1
            self._set_alarm(worker.probe_at)

    def _look_for_begun(
        self, worker: Worker, now: float, begun: tuple[int, float] | None
    ) -> tuple[bool, bool]:
        """Whether it is held up, and whether it begins nothing at all."""
        worker.probe_at = math.inf
        if worker.is_held:  # it has had its rest, and may have another try
            worker.is_held = False
            return False, False
        if begun is None or not worker.handed:
            return False, False
        runs = sum(seq <= begun[0] for seq in worker.handed)
        if runs == len(worker.handed) or runs >= worker.slots:
            return False, False
        if worker.probe_begun != begun[0]:
            worker.probe_begun = begun[0]
            worker.probe_at = now + HELD_UP
            self._set_alarm(worker.probe_at)
            return False, False
        if runs:
            self.hold(worker)
            return True, False
        self._probe_later(worker, now)
        return False, True

    def _probe_later(self, worker: Worker, now: float) -> None:
        """Probe it once more, after a longer time with each time that something was found."""
        worker.probe_at = now + min(HELD_UP * 2**worker.holds, _MAX_HOLD)
        worker.holds = min(worker.holds + 1, _MAX_LOOKS)
        self._set_alarm(worker.probe_at)

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
