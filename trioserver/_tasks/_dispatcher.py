"""What becomes of every job: the decisions, without any I/O.

One queue feeds all workers, so a short task never waits behind a long one while a worker is idle.
Every method is synchronous and leaves the state whole; time comes from a clock that is passed in.
Rules:

1. A job is in exactly one place: queued, waiting for its next attempt, handed to one worker, or
   ended (`_books`).
2. Who gets which job, and when, is `_placing`'s affair; what is late or stuck, `_watching`'s; which
   worker must go, `_replacing`'s, and which comes, `_seats`'s; what the end of an attempt means,
   `_attempts`'s.
3. A job that has begun ends by its worker's report or its worker's death, and by nothing else. Who
   wants it ended gives a *verdict*, which says what that death will mean.
4. An attempt that failed, ran out of time or lost its worker is followed by another one if the job
   has retries left. One that never began was none.
"""

from __future__ import annotations

import itertools
import logging
import math
from random import Random
from typing import TYPE_CHECKING, Final

from trioserver._tasks._attempts import Attempts
from trioserver._tasks._books import Books
from trioserver._tasks._placing import Placement
from trioserver._tasks._replacing import Replacement
from trioserver._tasks._seats import Seats
from trioserver._tasks._snapshot import statistics_of
from trioserver._tasks._statistics import Counters
from trioserver._tasks._watching import Watch
from trioserver._tasks._wire import Answer, Status, pack_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from trioserver._tasks._books import Worker
    from trioserver._tasks._engine import Engine
    from trioserver._tasks._job import Job
    from trioserver._tasks._patience import Patience
    from trioserver._tasks._policy import Policy
    from trioserver._tasks._statistics import TaskStatistics
    from trioserver._tasks._wire import Report

logger = logging.getLogger("trioserver.tasks")

# Plain numbers, because every report is compared with them.
_OK: Final = int(Status.OK)
_SKIPPED: Final = int(Status.SKIPPED)


class Dispatcher:
    """One queue of jobs for ``workers`` workers of an engine.

    Args:
      engine: Runs jobs; `_engine.Events` says which methods here are for it.
      workers: How many at first; their numbers, and their seats, are 0 to ``workers`` - 1. Each
        takes jobs from its `worker_ready` on.
      clock: The time in seconds, the same for stamps in reports.
      set_alarm: Called with a time at which `look_after` must be called; the earliest counts.
      policy: What the settings ask for.
      random: Of delays and lives.
    """

    def __init__(
        self,
        engine: Engine,
        workers: int,
        clock: Callable[[], float],
        set_alarm: Callable[[float], None],
        policy: Policy,
        random: Random | None = None,
    ) -> None:
        self._engine = engine
        self.clock = clock
        self._set_alarm = set_alarm
        self._grace = policy.grace
        self._counters = Counters()
        self._books = books = Books(workers, policy.concurrency)
        self._watch = watch = Watch(engine, clock, set_alarm)
        self._placement = Placement(
            books, engine, policy.max_window, clock, set_alarm, watch.handed
        )
        random = random or Random()  # noqa: S311  # of no secret
        self._attempts = Attempts(books.queue, self._counters, clock, set_alarm, random)
        self._replacement = Replacement(books, engine, self._placement, watch, policy, random)
        self._seats = Seats(books, self._attempts, self._replacement)
        self._listeners: list[Callable[[], None]] = []
        self.ids: Iterator[int] = itertools.count()
        """Ids for jobs, for whoever posts."""
        self.patience: Patience | None = None
        """Of who waits for a job, if that may pay; whoever opens this knows."""

    # What a pool calls

    @property
    def workers(self) -> int:
        """How many workers there are, without those that leave for another one."""
        return len(self._books.current)

    @property
    def waiting(self) -> int:
        """Jobs that have not begun: queued, or handed ahead of a worker's running ones."""
        return self._books.waiting

    def load(self) -> tuple[int, int]:
        """`waiting`; and no bytes: one pool posts here, and counts its own."""
        books = self._books  # not by way of `Books.waiting`: every post asks
        return books.queue.waiting + books.handed - books.running, 0

    @property
    def idle_places(self) -> int:
        """Jobs that could begin at once."""
        return self._books.idle_places

    @property
    def running(self) -> int:
        """Jobs that run."""
        return self._books.running

    def on_room(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called whenever `waiting` may have changed, or a sink was told."""
        self._listeners.append(listener)

    def on_adopted(self, adopt: Callable[[Job], None]) -> None:
        """Nothing has to be done: what tasks post, the pool accepts."""

    def want_room(self) -> None:
        """Nothing has to be done: listeners are called after every change."""

    has_unheard: None = None
    """It need not know: what tasks post, the pool refuses."""

    def accept(self, job: Job) -> None:
        """Queue ``job``; it ends in exactly one ``job.sink.jobs_ended``."""
        queue = self._books.queue
        self._counters.posted += 1
        queue.put(job, self.clock())
        if job.options.queue_timeout != math.inf:
            self._set_alarm(queue.due_at)
        if queue.stranded:
            self._seats.end_stranded()
        else:
            self._placement.job_came(job)

    def accept_all(self, jobs: Sequence[Job]) -> None:
        """Queue ``jobs``, which have the same options, as `accept` would one after the other."""
        queue = self._books.queue
        self._counters.posted += len(jobs)
        queue.put_all(jobs, self.clock())
        if queue.due_at != math.inf:
            self._set_alarm(queue.due_at)
        if queue.stranded:
            self._seats.end_stranded()
        else:
            self._placement.job_came(jobs[0])

    def cancel(self, job: Job, reason: str) -> None:
        """End ``job`` as cancelled: at once if it has not begun, else by force.

        If it ends by itself before that takes effect, that is how it ended.
        """
        verdict = Status.CANCELLED, reason.encode()
        if job.status is not None:
            return
        if job.verdict is not None:
            if job.verdict[0] != Status.CANCELLED:
                job.verdict = verdict  # it is on its end already, and must not be tried again
        elif not self._end_unbegun(job, *verdict):
            self._end_running(job, *verdict)
        self._changed()

    def abandon(self, unarrived: int, unheard: Iterable[int]) -> None:
        """Count tasks of which nobody will hear, beside those that have not ended here yet.

        Args:
          unarrived: How many were accepted for this dispatcher, and have not come.
          unheard: How those have ended whose end was not heard of.
        """
        counters = self._counters
        counters.posted += unarrived
        counters.abandoned += unarrived
        for status in unheard:
            counters.ended[status] -= 1
            counters.abandoned += 1

    def statistics(self) -> TaskStatistics:
        """All numbers as they are now."""
        statistics = statistics_of(self._books, self._counters, self._engine, self.clock())
        if not statistics.is_balanced:
            logger.error("the ledger of tasks does not balance: %s", statistics)
        return statistics

    # What an engine calls (`_engine.Events`)

    def worker_seated(self, seat: int, number: int) -> None:
        self._seats.take(seat, number)
        self._changed()

    def worker_dismissed(self, number: int) -> None:
        self._seats.dismiss(number)
        self._changed()

    def worker_ready(self, seat: int) -> None:
        self._books.add_worker(self._books.workers[seat], self._replacement.life())
        self._changed()

    def reported(self, seat: int, reports: Sequence[Report]) -> None:
        self._take_reports(self._books.workers[seat], reports)
        self._changed()

    def progressed(self, seat: int, values: Sequence[tuple[int, bytes]]) -> None:
        handed = self._books.workers[seat].handed
        for seq, body in values:
            job = handed.get(seq)
            if job is not None:
                job.sink.job_progressed(job, body)
        self._call_listeners()

    def posted(self, seat: int, seq: int, payload: bytes) -> None:
        job = self._books.workers[seat].handed.get(seq)
        if job is None:
            answer, task_id, reason = Answer.CLOSED, 0, "the task that posts is over"
        else:
            answer, task_id, reason = job.sink.job_posts(job, payload)
        self._engine.answer_post(seat, seq, answer, task_id, reason)
        self._call_listeners()

    def worker_died(
        self, seat: int, exit_code: int | None, begun: tuple[int, float] | None
    ) -> None:
        worker = self._books.workers[seat]
        self._books.remove_worker(worker)
        worker.is_worn = False
        worker.is_dead = True
        now = self.clock()
        if begun is not None and not worker.reported <= begun[0] < worker.next_seq:
            begun = None
        # A page that makes no sense: all may have begun.
        last = worker.next_seq if begun is None else begun[0]
        jobs = list(worker.handed.values())
        for job in jobs:
            self._books.take(worker, [job.seq])
        lost = [job for job in jobs if job.seq <= last]
        self._attempts.not_run([job for job in jobs if job.seq > last])
        worker.runs += len(lost)
        for job in lost:
            at = now if begun is None else self._engine.begun_at(seat, job.seq)
            job.begun_at = min(at, now)
            job.ran = now - job.begun_at
            code = "" if exit_code is None else str(exit_code)
            self._attempts.ended(job, *(job.verdict or (Status.CRASHED, code.encode())))
        if worker.is_leaving:
            self._seats.leave(worker)
        self._changed()

    # What the alarm calls

    def look_after(self) -> None:
        """See what is due: next attempts, limits of time, workers that make no progress."""
        now = self.clock()
        queue = self._books.queue
        queue.release(now)
        for job in queue.take_late(now):
            self._end_unbegun(job, Status.TIMED_OUT, pack_timeout(job.options.queue_timeout, False))
        for worker in self._books.workers.values():
            self._look_after(worker, now)
        if queue.due_at != math.inf:
            self._set_alarm(queue.due_at)
        self._changed()

    def _look_after(self, worker: Worker, now: float) -> None:
        if not self._watch.is_worth_a_look(worker, now):
            return
        # Results of short tasks are sent together, so some may lie behind a task that is long.
        unsent = [
            report for report in self._engine.unsent_reports(worker.seat) if worker.owes(report[0])
        ]
        # Those before them may be on their way still, and are heard in a moment; nothing that ran
        # after them is to come first.
        if unsent and (worker.slots > 1 or unsent[0][0] == worker.reported + 1):
            self._take_reports(worker, unsent)
        found = self._watch.look(worker, now)
        if found.is_slow and not self._placement.run_times.is_long:
            self._placement.take_back_after(worker, worker.last_to_run)
        is_held = found.is_held
        if found.is_asleep and self._placement.has_free_beside(worker):
            self._watch.hold(worker)
            is_held = True
        if is_held:
            begun = self._engine.begun(worker.seat)
            self._placement.take_back_after(worker, 0 if begun is None else begun[0])
        if found.is_stuck:
            self._replacement.give_up(worker)
        for job in found.late:
            if worker.handed.get(job.seq) is not job:
                continue  # taken back with one before it: what the page said has changed since
            self._end_running(job, Status.TIMED_OUT, pack_timeout(job.options.timeout, True))
        if found.must_die:
            self._replacement.kill(worker)

    # Decisions

    def _changed(self) -> None:
        """Go on after a worker's state, or the queue's, has changed."""
        if self._books.queue.stranded:
            self._seats.end_stranded()
        self._placement.workers_changed()
        self._call_listeners()

    def _call_listeners(self) -> None:
        for listener in self._listeners:
            listener()

    def _take_reports(self, worker: Worker, reports: Sequence[Report]) -> None:
        if not reports:
            return
        seqs = [report[0] for report in reports]
        worker.done_with(seqs)
        runs = 0
        total = 0.0
        well: list[Job] = []
        taken = self._books.take(worker, seqs)
        for job, (_, status, begun, ran, body) in zip(taken, reports, strict=True):
            if job is None:
                continue  # heard before: a page and a message can both tell of it; or taken back
            if status == _OK:  # as nearly all
                job.status = status
                job.begun_at = begun
                job.ran = ran
                job.body = body
                total += ran
                well.append(job)
                continue
            if well:  # they have ended before this one
                runs += len(well)
                self._attempts.ended_well(well)
                well = []
            if status == _SKIPPED:
                # Both begun and revoked, each side before it saw the other's mark.
                self._attempts.not_run([job])
                continue
            runs += 1
            total += ran
            job.begun_at = begun
            job.ran = ran
            if status == Status.CANCELLED and job.verdict is not None:
                self._attempts.ended(job, *job.verdict)  # its own scope has ended it
            else:
                self._attempts.ended(job, status, body)
        if well:
            runs += len(well)
            self._attempts.ended_well(well)
        self._watch.progressed(worker)
        if runs:
            worker.runs += runs
            self._placement.run_times.learn(total, runs)
            self._replacement.look_for_wear(worker)
        else:
            # What it had yet to skip may be what it was waited for.
            self._replacement.let_go(worker)

    def _end_unbegun(self, job: Job, status: int, body: bytes) -> bool:
        """End ``job`` if it has not begun; False if it has, or may have."""
        if job.worker_id is None:
            self._attempts.end_unrun(job, status, body)
            self._books.queue.drop(job)
            return True
        worker = self._books.holder(job)
        if not self._engine.revoke(worker.seat, job.seq):
            return False
        self._books.take(worker, [job.seq])
        self._attempts.end_unrun(job, status, body)
        self._replacement.let_go(worker)
        return True

    def _end_running(self, job: Job, status: int, body: bytes) -> None:
        """End ``job``, which has begun: by its own scope if it has one, else with its worker."""
        assert job.worker_id is not None
        job.verdict = status, body
        worker = self._books.holder(job)
        if self._watch.has_ended(worker, job):
            self._watch.reports_soon(worker)
        elif self._grace:
            self._engine.cancel(worker.seat, job.seq)
            self._watch.ends_by(worker, job, self.clock() + self._grace)
        elif self._placement.take_back_after(worker, job.seq, pinned=True) or (
            self._engine.begun(worker.seat) is None
        ):
            self._replacement.kill(worker)
        # Else another one has begun behind it, which proves that it has ended.
