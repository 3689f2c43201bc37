"""What becomes of every job: the decisions, without any I/O.

One queue feeds all workers, so a short task never waits behind a long one while a worker is idle.
Every method is synchronous and leaves the state whole; time comes from a clock that is passed in.
Rules:

1. A job is in exactly one place: queued, waiting for its next attempt, handed to one worker, or
   ended (`_books`).
2. Who gets which job, and when, is `_placing`'s affair; what is late or stuck, `_watching`'s.
3. A job that has begun ends by its worker's report or its worker's death, and by nothing else. Who
   wants it ended gives a *verdict*, which says what that death will mean.
4. An attempt that failed, ran out of time or lost its worker is followed by another one if the job
   has retries left. One that never began was none.
"""

from __future__ import annotations

import logging
import math
from random import Random
from typing import TYPE_CHECKING, Final

from trioserver._tasks._books import Books
from trioserver._tasks._placing import Placement
from trioserver._tasks._snapshot import statistics_of
from trioserver._tasks._statistics import Counters
from trioserver._tasks._watching import Watch
from trioserver._tasks._wire import Answer, Status, pack_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trioserver._tasks._books import Worker
    from trioserver._tasks._engine import Engine
    from trioserver._tasks._job import Job
    from trioserver._tasks._policy import Policy
    from trioserver._tasks._statistics import TaskStatistics
    from trioserver._tasks._wire import Report

logger = logging.getLogger("trioserver.tasks")

_RETRIED: Final = frozenset({Status.FAILED, Status.TIMED_OUT, Status.CRASHED})
_FIRST_DELAY: Final = 0.1
_MAX_DELAY: Final = 30.0
_MAX_DOUBLINGS: Final = 20
_JITTER: Final = 0.25
"""The part of a delay by which it may be longer, so that tasks that failed together part."""


class Dispatcher:
    """One queue of jobs for ``workers`` workers of an engine.

    Args:
      engine: Runs jobs; `_engine.Events` says which methods here are for it.
      workers: Ids are 0 to ``workers`` - 1; each takes jobs from its `worker_ready` on.
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
        self._policy = policy
        self._random = random or Random()  # noqa: S311  # of no secret
        self._counters = Counters()
        self._books = Books(workers, policy.concurrency)
        self._watch = Watch(engine, clock, set_alarm)
        self._placement = Placement(
            self._books, engine, policy.max_window, clock, set_alarm, self._watch.handed
        )
        self._listeners: list[Callable[[], None]] = []

    # What a pool calls

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return len(self._books.workers)

    @property
    def waiting(self) -> int:
        """Jobs that have not begun: queued, or handed ahead of a worker's running ones."""
        return self._books.waiting

    @property
    def running(self) -> int:
        """Jobs that run."""
        return self._books.running

    def on_room(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called whenever `waiting` may have become less."""
        self._listeners.append(listener)

    def accept(self, job: Job) -> None:
        """Queue ``job``; it ends in exactly one ``job.sink.job_ended(job)``."""
        self._counters.posted += 1
        self._books.queue.put(job, self.clock())
        if job.options.queue_timeout != math.inf:
            self._set_alarm(self._books.queue.due_at)
        self._placement.job_came(job)

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

    def statistics(self) -> TaskStatistics:
        """All numbers as they are now."""
        statistics = statistics_of(self._books, self._counters, self._engine, self.clock())
        if not statistics.is_balanced:
            logger.error("the ledger of tasks does not balance: %s", statistics)
        return statistics

    # What an engine calls (`_engine.Events`)

    def worker_ready(self, worker_id: int) -> None:
        self._books.add_worker(self._books.workers[worker_id], self.clock(), self._life())
        self._changed()

    def reported(self, worker_id: int, reports: Sequence[Report]) -> None:
        self._take_reports(self._books.workers[worker_id], reports)
        self._changed()

    def progressed(self, worker_id: int, values: Sequence[tuple[int, bytes]]) -> None:
        handed = self._books.workers[worker_id].handed
        for seq, body in values:
            job = handed.get(seq)
            if job is not None:
                job.sink.job_progressed(job, body)

    def posted(self, worker_id: int, seq: int, payload: bytes) -> None:
        job = self._books.workers[worker_id].handed.get(seq)
        if job is None:
            answer, task_id, reason = Answer.CLOSED, 0, "the task that posts is over"
        else:
            answer, task_id, reason = job.sink.job_posts(job, payload)
        self._engine.answer_post(worker_id, seq, answer, task_id, reason)

    def worker_died(
        self, worker_id: int, exit_code: int | None, begun: tuple[int, float] | None
    ) -> None:
        worker = self._books.workers[worker_id]
        self._books.remove_worker(worker)
        now = self.clock()
        if begun is not None and not worker.reported <= begun[0] < worker.next_seq:
            begun = None
        # A page that makes no sense: all may have begun.
        last = worker.next_seq if begun is None else begun[0]
        jobs = list(worker.handed.values())
        for job in jobs:
            self._books.take(worker, job.seq)
        lost = [job for job in jobs if job.seq <= last]
        self._not_run([job for job in jobs if job.seq > last])
        worker.runs += len(lost)
        for job in lost:
            at = now if begun is None else self._engine.begun_at(worker_id, job.seq)
            job.begun_at = min(at, now)
            job.ran = now - job.begun_at
            code = "" if exit_code is None else str(exit_code)
            self._ended(job, *(job.verdict or (Status.CRASHED, code.encode())))
        self._changed()

    # What the alarm calls

    def look_after(self) -> None:
        """See what is due: next attempts, limits of time, workers that make no progress."""
        now = self.clock()
        queue = self._books.queue
        queue.release(now)
        for job in queue.take_late(now):
            self._end_unbegun(job, Status.TIMED_OUT, pack_timeout(job.options.queue_timeout, False))
        for worker in self._books.workers:
            self._look_after(worker, now)
        if queue.due_at != math.inf:
            self._set_alarm(queue.due_at)
        self._changed()

    def _look_after(self, worker: Worker, now: float) -> None:
        if not self._watch.is_worth_a_look(worker, now):
            return
        # Results of short tasks are sent together, so some may lie behind a task that is long.
        unsent = [
            report
            for report in self._engine.unsent_reports(worker.id)
            if report[0] in worker.handed
        ]
        # Those before them may be on their way still, and are heard in a moment; nothing that ran
        # after them is to come first.
        if unsent and (worker.slots > 1 or unsent[0][0] == worker.first):
            self._take_reports(worker, unsent)
        found = self._watch.look(worker, now)
        if found.is_slow and not self._placement.run_times.is_long:
            self._placement.take_back_after(worker, worker.last_to_run)
        if found.is_stuck:
            self._replace(worker)
        for job in found.late:
            self._end_running(job, Status.TIMED_OUT, pack_timeout(job.options.timeout, True))
        if found.must_die:
            self._kill(worker)

    # Decisions

    def _changed(self) -> None:
        """Go on after a worker's state, or the queue's, has changed."""
        self._placement.workers_changed()
        for listener in self._listeners:
            listener()

    def _life(self) -> float:
        """How many jobs a new worker may run: not all of them leave at the same time."""
        most = self._policy.max_request
        return math.inf if most == 0 else most - self._random.randint(0, most // 4)

    def _take_reports(self, worker: Worker, reports: Sequence[Report]) -> None:
        if not reports:
            return
        runs = 0
        total = 0.0
        worker.done_with([report[0] for report in reports])
        for seq, status, begun, ran, body in reports:
            job = self._books.take(worker, seq)
            if job is None:
                continue  # heard before: a page and a message can both tell of it; or taken back
            if status == Status.SKIPPED:
                # Both begun and revoked, each side before it saw the other's mark.
                self._not_run([job])
                continue
            runs += 1
            total += ran
            job.begun_at = begun
            job.ran = ran
            if status == Status.CANCELLED and job.verdict is not None:
                self._ended(job, *job.verdict)  # its own scope has ended it
            else:
                self._ended(job, status, body)
        self._watch.progressed(worker)
        if runs:
            worker.runs += runs
            self._placement.run_times.learn(total, runs)
            self._look_for_wear(worker)
        else:
            self._let_go(worker)  # what it had yet to skip may be what it was waited for

    def _look_for_wear(self, worker: Worker) -> None:
        """Have a worker leave that has run enough, or has grown too large."""
        if not worker.ready:
            return
        if not worker.is_worn:
            most = self._policy.max_memory
            worker.is_worn = worker.runs >= worker.life or (
                most > 0 and (self._engine.memory(worker.id) or 0) > most
            )
            if worker.is_worn:
                self._take_back_all(worker)
        self._let_go(worker)

    def _let_go(self, worker: Worker) -> None:
        """Have a worn worker leave when its hands are empty."""
        if worker.is_worn and worker.ready and not worker.handed:
            self._books.remove_worker(worker)
            self._engine.retire(worker.id)

    def _take_back_all(self, worker: Worker) -> bool:
        """Take back whatever has not begun; False if something has."""
        return self._placement.take_back_after(worker, 0, pinned=True)

    def _replace(self, worker: Worker) -> None:
        """Kill a worker that does not take up what it is handed."""
        if self._take_back_all(worker):
            logger.warning("task worker %d takes up no tasks; it is killed", worker.id)
            self._books.remove_worker(worker)
            self._engine.kill(worker.id)

    def _end_unbegun(self, job: Job, status: int, body: bytes) -> bool:
        """End ``job`` if it has not begun; False if it has, or may have."""
        if job.worker_id is None:
            self._end_never_run(job, status, body)
            self._books.queue.drop(job)
            return True
        worker = self._books.workers[job.worker_id]
        if not self._engine.revoke(worker.id, job.seq):
            return False
        self._books.take(worker, job.seq)
        self._end_never_run(job, status, body)
        self._let_go(worker)
        return True

    def _end_running(self, job: Job, status: int, body: bytes) -> None:
        """End ``job``, which has begun: by its own scope if it has one, else with its worker."""
        assert job.worker_id is not None
        job.verdict = status, body
        worker = self._books.workers[job.worker_id]
        if self._policy.grace:
            self._engine.cancel(worker.id, job.seq)
            self._watch.ends_by(worker, job, self.clock() + self._policy.grace)
        elif self._placement.take_back_after(worker, job.seq, pinned=True) or (
            self._engine.begun(worker.id) is None
        ):
            self._kill(worker)
        # Else another one has begun behind it, which proves that it has ended.

    def _kill(self, worker: Worker) -> None:
        """Kill a worker for what it runs; nothing else must begin there meanwhile."""
        if not worker.ready:
            return  # it is on its end already
        self._take_back_all(worker)
        self._books.remove_worker(worker)
        self._engine.kill(worker.id)

    def _not_run(self, jobs: Sequence[Job]) -> None:
        """Take jobs that looked as if they had begun, and turned out never to have run."""
        now = self.clock()
        back: list[Job] = []
        ended: list[tuple[Job, int, bytes]] = []
        for job in jobs:
            limit = job.options.queue_timeout
            if job.verdict is not None and job.verdict[0] == Status.CANCELLED:
                ended.append((job, *job.verdict))
            elif now >= job.queued_at + limit:
                # When that was over it seemed to run, so nobody looks for it any more.
                ended.append((job, Status.TIMED_OUT, pack_timeout(limit, False)))
            else:
                job.verdict = None  # the time of its run has not begun after all
                back.append(job)
        self._books.queue.put_back(back)
        for job, status, body in ended:
            self._end_never_run(job, status, body)

    def _end_never_run(self, job: Job, status: int, body: bytes) -> None:
        job.worker_id = None
        job.begun_at = self.clock()
        job.ran = 0.0
        self._end(job, status, body)

    def _ended(self, job: Job, status: int, body: bytes) -> None:
        """An attempt has ended."""
        is_cancelled = job.verdict is not None and job.verdict[0] == Status.CANCELLED
        if status in _RETRIED and job.attempt <= job.options.retries and not is_cancelled:
            self._try_again(job)
            return
        self._counters.waits.append(job.begun_at - job.queued_at)
        self._counters.runs.append(job.ran)
        self._end(job, status, body)

    def _try_again(self, job: Job) -> None:
        delay = min(_FIRST_DELAY * 2.0 ** min(job.attempt - 1, _MAX_DOUBLINGS), _MAX_DELAY)
        delay *= 1 + self._random.uniform(0, _JITTER)
        job.attempt += 1
        job.worker_id = None
        job.verdict = None
        self._counters.retried += 1
        self._books.queue.delay(job, self.clock() + delay)
        self._set_alarm(self._books.queue.due_at)

    def _end(self, job: Job, status: int, body: bytes) -> None:
        self._counters.ended[status] += 1
        job.status = status
        job.body = body
        job.sink.job_ended(job)
