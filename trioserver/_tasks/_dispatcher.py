"""Which job goes to which worker, and what must die: the decisions, without any I/O.

One queue feeds all workers, so a short task never waits behind a long one while a worker is idle.
Every method is synchronous and leaves the state whole; time comes from a clock that is passed in.
Rules:

1. A job is in exactly one place: queued, handed to one worker, or ended.
2. A worker that waits for nothing is handed a job at once. Only when there is a backlog is more
   handed ahead: about `WINDOW` seconds of work by recent run times, one job where they are long or
   unknown. A worker must not pay a round trip between two tasks, and short tasks must share one.
3. What is handed ahead and not begun can be taken back at any moment (`Engine.revoke`), and is,
   when its worker turns out slow and another is idle, or when the worker must be killed.
4. A job that has begun ends by its worker's report or its worker's death, and by nothing else.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from trioserver._tasks._books import Books
from trioserver._tasks._run_times import WINDOW, RunTimes
from trioserver._tasks._wire import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trioserver._tasks._books import Worker
    from trioserver._tasks._engine import Engine
    from trioserver._tasks._job import Job
    from trioserver._tasks._wire import Report

_MAX_LOOKS: Final = 9
"""Doublings of the time between two looks at a worker that makes no progress: to a second."""


class Dispatcher:
    """One queue of jobs for ``workers`` workers of an engine.

    Args:
      engine: Runs jobs; `_engine.Events` says which methods here are for it.
      workers: Ids are 0 to ``workers`` - 1; each takes jobs from its `worker_ready` on.
      clock: The time in seconds, the same for stamps in reports.
      set_alarm: Called with a time at which `look_after` must be called; the earliest counts.
    """

    def __init__(
        self,
        engine: Engine,
        workers: int,
        clock: Callable[[], float],
        set_alarm: Callable[[float], None],
    ) -> None:
        self._engine = engine
        self.clock = clock
        self._set_alarm = set_alarm
        self._books = Books(workers)
        self._run_times = RunTimes()
        # `accept` looks for a worker only from this length of the queue on: where none has room,
        # looking again at every post would make posts cost as much as there are workers.
        self._worth_a_look = 1.0
        self._listeners: list[Callable[[], None]] = []

    # What a pool calls

    @property
    def waiting(self) -> int:
        """Jobs that have not begun: queued, or handed ahead of a worker's running one."""
        return self._books.waiting

    @property
    def running(self) -> int:
        """Jobs that run."""
        return self._books.busy

    def on_room(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called whenever `waiting` may have become less."""
        self._listeners.append(listener)

    def accept(self, job: Job) -> None:
        """Queue ``job``; it ends in exactly one ``job.sink.job_ended(job)``."""
        books = self._books
        books.put(job)
        if books.queued >= self._worth_a_look:
            self._dispatch()

    def cancel(self, job: Job, reason: str) -> None:
        """End ``job`` as cancelled: at once if it has not begun, else by killing its worker.

        If it ends by itself before the kill takes effect, that is how it ended.
        """
        if job.status is not None or job.cancel_reason is not None:
            return
        if job.worker_id is None:
            self._end_cancelled(job, reason)
            self._books.drop()
        else:
            worker = self._books.workers[job.worker_id]
            if self._engine.revoke(worker.id, job.seq):
                self._books.take(worker, job.seq)
                self._end_cancelled(job, reason)
            else:
                job.cancel_reason = reason
                self._kill_running(worker, job)
        self._dispatch_anew()

    # What an engine calls (`_engine.Events`)

    def worker_ready(self, worker_id: int) -> None:
        self._books.add_worker(self._books.workers[worker_id])
        self._dispatch_anew()

    def reported(self, worker_id: int, reports: Sequence[Report]) -> None:
        worker = self._books.workers[worker_id]
        self._take_reports(worker, reports)
        self._dispatch_anew()

    def worker_died(
        self, worker_id: int, exit_code: int | None, begun: tuple[int, float] | None
    ) -> None:
        worker = self._books.workers[worker_id]
        self._books.remove_worker(worker)
        now = self.clock()
        if begun is None or not worker.reported <= begun[0] < worker.next_seq:
            begun = worker.next_seq, now  # a page that makes no sense: all may have begun
        begun_seq, begun_at = begun
        jobs = list(worker.handed.values())
        for job in jobs:
            self._books.take(worker, job.seq)
        lost = [job for job in jobs if job.seq <= begun_seq]
        self._not_run([job for job in jobs if job.seq > begun_seq])
        for job in lost:
            job.begun_at = begun_at
            job.ran = max(0.0, now - begun_at)
            if job.cancel_reason is not None:
                self._end(job, Status.CANCELLED, job.cancel_reason.encode())
            else:
                code = "" if exit_code is None else str(exit_code)
                self._end(job, Status.CRASHED, code.encode())
        self._dispatch_anew()

    # What the alarm calls

    def look_after(self) -> None:
        """Look after workers that have made no progress for a while."""
        now = self.clock()
        for worker in self._books.workers:
            if len(worker.handed) > 1 and not worker.settled:
                self._look_after(worker, now)
        self._dispatch_anew()

    def _look_after(self, worker: Worker, now: float) -> None:
        due = max(worker.heard_at + WINDOW, worker.look_at)
        if now < due:
            self._set_alarm(due)
            return
        # Results of short tasks are sent together, so some may lie behind a task that is long.
        unsent = self._engine.unsent_reports(worker.id)
        reports = [report for report in unsent if report[0] > worker.reported]
        if reports:
            self._take_reports(worker, reports)
            return
        begun_seq, begun_at = self._engine.begun(worker.id)
        # One that has not run for that long yet may still end so quickly that its report stays
        # behind the next one, and nobody would look.
        if begun_seq != worker.first or now < begun_at + WINDOW:
            # One that was stopped is looked at less and less often.
            worker.look_at = now + WINDOW * 2**worker.looks
            worker.looks = min(worker.looks + 1, _MAX_LOOKS)
            self._set_alarm(worker.look_at)
            return
        worker.settled = True
        if not self._run_times.is_long:
            self._take_back_after(worker, worker.first)

    # Decisions

    def _dispatch_anew(self) -> None:
        """Dispatch after the state of a worker has changed."""
        self._worth_a_look = 1.0
        self._dispatch()
        for listener in self._listeners:
            listener()

    def _dispatch(self) -> None:
        books, run_times = self._books, self._run_times
        if books.idle and not books.queued:
            self._take_back_for_idle()
        window = run_times.window
        ready = sum(worker.ready for worker in books.workers)
        while books.queued:
            worker = self._choose(window)
            if worker is None:
                break
            share = math.ceil(books.queued / ready)
            count = 1 if run_times.is_long else max(1, min(share, worker.room(window)))
            self._hand(worker, [books.next() for _ in range(count)])
        if books.idle and books.queued:
            self._set_alarm(self.clock() + WINDOW)

    def _choose(self, window: int) -> Worker | None:
        """The worker to hand queued jobs to, None if they had better wait."""
        books = self._books
        if books.idle and self._is_worth_waking():
            for worker in books.idle.values():
                if worker.room(window) > 0:  # not if it has yet to skip too many that were revoked
                    return worker
        batch = (1 + window) // 2
        worth_a_look = self._run_times.worth_waking if books.idle else math.inf
        best = None
        for worker in books.workers:
            if not worker.ready or not worker.handed or worker.room(window) < 1:
                continue
            if worker.settled and not self._run_times.is_long:
                continue  # it is held up; what is handed ahead would be taken back
            if len(worker.handed) > 1 and (len(worker.handed) > batch or books.queued < batch):
                # It has enough in hand, so the next message may wait until it carries many.
                worth_a_look = min(worth_a_look, max(batch, books.queued + 1))
                continue
            if best is None or (len(worker.handed), worker.heard_at) < (
                len(best.handed),
                best.heard_at,
            ):
                best = worker
        self._worth_a_look = worth_a_look if best is None else 1.0
        return best

    def _is_worth_waking(self) -> bool:
        """Whether queued jobs should go to an idle worker rather than behind a busy one's."""
        books = self._books
        if books.busy == 0 or self._run_times.is_worth_waking(books.queued):
            return True
        late = self.clock() - WINDOW
        return all(worker.heard_at <= late for worker in books.workers if worker.handed)

    def _hand(self, worker: Worker, jobs: list[Job]) -> None:
        self._books.hand(worker, jobs, self.clock())
        self._engine.start(worker.id, jobs)
        if len(worker.handed) > 1 and not worker.settled:
            self._set_alarm(worker.heard_at + WINDOW)

    def _take_back_for_idle(self) -> None:
        """Give idle workers what waits behind another's running task."""
        now = self.clock()
        for worker in self._books.workers:
            if len(worker.handed) > 1:
                if self._run_times.is_long or now >= worker.heard_at + WINDOW:  # as the alarm's
                    self._take_back_after(worker, worker.first)
                else:
                    self._set_alarm(worker.heard_at + WINDOW)

    def _take_back_after(self, worker: Worker, seq: int) -> bool:
        """Take back what was handed behind job ``seq``; False if some of it has begun."""
        behind = [job for job in worker.handed.values() if job.seq > seq]
        taken = [job for job in behind if self._engine.revoke(worker.id, job.seq)]
        for job in taken:
            self._books.take(worker, job.seq)
        self._books.put_back(taken)
        return len(taken) == len(behind)

    def _kill_running(self, worker: Worker, job: Job) -> None:
        """Kill the worker of a job that has begun, unless that job turns out to have ended.

        What is handed ahead is taken back first: so no other task can begin on the worker and be
        killed in place of this one, and one that has begun proves that this one has ended.
        """
        if self._take_back_after(worker, job.seq):
            worker.ready = False
            self._engine.kill(worker.id)

    def _take_reports(self, worker: Worker, reports: Sequence[Report]) -> None:
        if not reports:
            return
        runs = 0
        total = 0.0
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
            self._end(job, status, body)
        worker.reported = max(worker.reported, reports[-1][0])
        worker.progressed(self.clock())
        if len(worker.handed) > 1:
            self._set_alarm(worker.heard_at + WINDOW)
        if runs:
            self._run_times.learn(total, runs)

    def _not_run(self, jobs: Sequence[Job]) -> None:
        """Take jobs that looked as if they had begun, and turned out never to have run."""
        self._books.put_back([job for job in jobs if job.cancel_reason is None])
        for job in jobs:
            if job.cancel_reason is not None:
                self._end_cancelled(job, job.cancel_reason)

    def _end_cancelled(self, job: Job, reason: str) -> None:
        """End a job that never began."""
        job.worker_id = None
        job.begun_at = self.clock()
        self._end(job, Status.CANCELLED, reason.encode())

    def _end(self, job: Job, status: int, body: bytes) -> None:
        job.status = status
        job.body = body
        job.sink.job_ended(job)
