"""Where every job is that has not ended: queued, or handed to one worker. No decisions."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from trioserver._tasks._recorder import MAX_HANDED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioserver._tasks._job import Job


class Worker:
    """A worker as the dispatcher sees it."""

    __slots__ = (
        "handed",
        "heard_at",
        "id",
        "look_at",
        "looks",
        "next_seq",
        "ready",
        "reported",
        "settled",
    )

    def __init__(self, worker_id: int) -> None:
        self.id = worker_id
        self.ready = False
        # In the order in which they run; the first one runs, or will in a moment.
        self.handed: dict[int, Job] = {}
        self.next_seq = 1
        # The last job that it has done with, run or skipped.
        self.reported = 0
        # When it last made progress: took up work after none, or reported.
        self.heard_at = 0.0
        # When to look at it next, should it make none, and after how many looks in vain.
        self.look_at = 0.0
        self.looks = 0
        # Nothing new can be learnt of it before its running task ends.
        self.settled = False

    def progressed(self, now: float) -> None:
        """It took up work after none, or reported."""
        self.heard_at = now
        self.look_at = 0.0
        self.looks = 0
        self.settled = False

    @property
    def first(self) -> int:
        """The job that runs, or will in a moment; only while something is handed."""
        return next(iter(self.handed))

    def room(self, window: int) -> int:
        """How many more it may hold."""
        return min(1 + window - len(self.handed), MAX_HANDED - (self.next_seq - self.reported))


class Books:
    """The queue and the workers' hands, and the sums over both.

    Args:
      workers: How many; their ids are 0 to ``workers`` - 1.
    """

    def __init__(self, workers: int) -> None:
        self.workers = [Worker(worker_id) for worker_id in range(workers)]
        # Ready workers with nothing handed to them, the longest idle first.
        self.idle: dict[int, Worker] = {}
        # Cancelled jobs stay in the queue, ended, until they are met.
        self.queue: deque[Job] = deque()
        self.queued = 0
        self.handed = 0
        # Workers with something handed to them.
        self.busy = 0

    @property
    def waiting(self) -> int:
        """Jobs that have not begun: queued, or handed ahead of a worker's running one."""
        return self.queued + self.handed - self.busy

    # The queue

    def put(self, job: Job) -> None:
        """Queue a new job."""
        self.queue.append(job)
        self.queued += 1

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Queue jobs that were taken back where they were: before all that came after them."""
        for job in jobs:
            job.worker_id = None
            job.seq = -1
        self.queue.extendleft(reversed(jobs))
        self.queued += len(jobs)

    def next(self) -> Job:
        """Take the next job out of the queue; only while some are ``queued``."""
        while True:
            job = self.queue.popleft()
            if job.status is None:
                self.queued -= 1
                return job

    def drop(self) -> None:
        """One of the queue has ended there."""
        self.queued -= 1
        # Those that were cancelled must not outnumber those that wait.
        if len(self.queue) > 2 * self.queued + 64:
            self.queue = deque(job for job in self.queue if job.status is None)

    # The workers' hands

    def add_worker(self, worker: Worker) -> None:
        """It has a new process, whose flight recorder says that 0 was begun last."""
        worker.ready = True
        worker.next_seq = 1
        worker.reported = 0
        self.idle[worker.id] = worker

    def remove_worker(self, worker: Worker) -> None:
        """Nothing more can be handed to it."""
        worker.ready = False
        self.idle.pop(worker.id, None)

    def hand(self, worker: Worker, jobs: Sequence[Job], now: float) -> None:
        """Put ``jobs`` into its hands."""
        if not worker.handed:
            self.idle.pop(worker.id, None)
            self.busy += 1
            worker.progressed(now)
        for job in jobs:
            job.seq = worker.next_seq
            job.worker_id = worker.id
            worker.handed[job.seq] = job
            worker.next_seq += 1
        self.handed += len(jobs)

    def take(self, worker: Worker, seq: int) -> Job | None:
        """Take one job off its hands; None if it is not there (any more)."""
        job = worker.handed.pop(seq, None)
        if job is not None:
            self.handed -= 1
            if not worker.handed:
                self.busy -= 1
                if worker.ready:
                    self.idle[worker.id] = worker
        return job
