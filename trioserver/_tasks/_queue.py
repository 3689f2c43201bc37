"""Jobs that no worker has in hand: in line, pinned to a worker, or waiting for their next attempt.

Jobs that end where they are stay until they are met: to take one out of the middle would cost as
much as there are jobs. Whatever is kept so never outnumbers what is alive.
"""

from __future__ import annotations

import heapq
import itertools
import math
import weakref
from collections import deque
from typing import TYPE_CHECKING, Final

from trioserver._tasks._job import DELAYED, QUEUED
from trioserver._tasks._run_times import AHEAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioserver._tasks._job import Job

_KEPT_ANYWAY: Final = 8
"""Ended jobs that are kept however few are alive."""


class _Line:
    """First come, first served."""

    __slots__ = ("count", "jobs")

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.count = 0

    def append(self, job: Job) -> None:
        self.jobs.append(job)
        self.count += 1

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Put ``jobs``, in their order, where they were: behind those only that came before."""
        self.count += len(jobs)
        earlier: list[Job] = []
        # Another worker may have given back earlier ones already.
        while jobs and self.jobs and _came(self.jobs[0]) < _came(jobs[-1]):
            earlier.append(self.jobs.popleft())
        if earlier:
            jobs = sorted([*earlier, *jobs], key=_came)
        self.jobs.extendleft(reversed(jobs))

    @property
    def first(self) -> Job:
        """Who is next; only while there is a ``count``."""
        jobs = self.jobs
        while jobs[0].status is not None:
            jobs.popleft()
        return jobs[0]

    def next(self) -> Job:
        """Take out who is next; only while there is a ``count``."""
        (job,) = self.next_ones(1, 0)
        return job

    def next_ones(self, count: int, size: int) -> list[Job]:
        """Take out so many, in their order; only while there are.

        Fewer, but at least one, if they have ``size`` bytes of data.
        """
        pop = self.jobs.popleft
        jobs: list[Job] = []
        held = 0
        while len(jobs) < count:
            job = pop()
            if job.status is None:
                jobs.append(job)
                held += job.size
                if held >= size:
                    break
        self.count -= len(jobs)
        return jobs

    def drop(self) -> None:
        """One of them has ended here."""
        self.count -= 1
        if len(self.jobs) > 2 * self.count + _KEPT_ANYWAY:
            self.jobs = deque(job for job in self.jobs if job.status is None)


def _came(job: Job) -> tuple[float, int]:
    return job.queued_at, job.id


class Queue:
    """One line for all workers, one for each number, and two heaps of times.

    Args:
      workers: How many; their numbers are 0 to ``workers`` - 1.
    """

    def __init__(self, workers: int) -> None:
        self.line = _Line()
        """Jobs for whichever worker."""
        self._pinned = [_Line() for _ in range(workers)]
        self.waiting = 0
        """Jobs that are here."""
        self.pinned = 0
        """Jobs in line for one worker."""
        self.stranded: deque[Job] = deque()
        """Jobs for a number that is gone."""
        self.delayed = 0
        """Jobs that wait for their next attempt."""
        # When, a number that keeps equal times in their order, and what.
        self._delays: list[tuple[float, int, Job]] = []
        # Of those with a limit most end long before it, and must not be kept for that.
        self._limits: list[tuple[float, int, weakref.ref[Job]]] = []
        self._sift_at = _KEPT_ANYWAY
        self._numbers = itertools.count()

    @property
    def shared(self) -> int:
        """Jobs in line for whichever worker."""
        return self.line.count

    @property
    def oldest_at(self) -> float | None:
        """When the job was queued that has been in line for the longest; None if none is."""
        lines = (self.line, *self._pinned)
        return min((line.first.queued_at for line in lines if line.count), default=None)

    # Coming

    def put(self, job: Job, now: float) -> None:
        """Take a job that was posted, or is due for one more attempt."""
        job.queued_at = now
        job.seq = QUEUED
        self.waiting += 1
        options = job.options
        if options.task_worker is None:
            line = self.line
            line.jobs.append(job)
            line.count += 1
        elif self.is_stranded(job):
            self.stranded.append(job)
        else:
            self._pinned[options.task_worker].append(job)
            self.pinned += 1
        if options.queue_timeout != math.inf:
            entry = (now + options.queue_timeout, next(self._numbers), weakref.ref(job))
            heapq.heappush(self._limits, entry)
            if len(self._limits) > self._sift_at:
                self._limits = [entry for entry in self._limits if _is_alive(entry[2]())]
                heapq.heapify(self._limits)
                self._sift_at = 2 * len(self._limits) + _KEPT_ANYWAY

    def put_all(self, jobs: Sequence[Job], now: float) -> None:
        """Take jobs that were posted together, with the same options."""
        options = jobs[0].options
        if options.task_worker is not None or options.queue_timeout != math.inf:
            for job in jobs:
                self.put(job, now)
            return
        for job in jobs:
            job.queued_at = now
        self.waiting += len(jobs)
        self.line.jobs.extend(jobs)
        self.line.count += len(jobs)

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Take jobs from a worker that has not begun them, before all that came after them."""
        for job in jobs:
            job.worker_id = None
            job.seq = QUEUED
        self.waiting += len(jobs)
        shared = [job for job in jobs if job.options.task_worker is None]
        self.line.put_back(shared)
        if len(shared) < len(jobs):
            for number, line in enumerate(self._pinned):
                own = [job for job in jobs if job.options.task_worker == number]
                line.put_back(own)
                self.pinned += len(own)
            self.stranded += filter(self.is_stranded, jobs)

    def delay(self, job: Job, until: float) -> None:
        """Take a job whose next attempt is due then."""
        job.seq = DELAYED
        self.waiting += 1
        self.delayed += 1
        heapq.heappush(self._delays, (until, next(self._numbers), job))

    # Going

    def next_ones(self, worker_id: int, count: int) -> list[Job]:
        """So many for this worker, each the next one then; only while ``count`` are ``shared``.

        Fewer, but at least one, if their data is large.
        """
        if not self.pinned:
            jobs = self.line.next_ones(count, AHEAD_BYTES)
            self.waiting -= len(jobs)
            return jobs
        jobs = []
        size = 0
        while len(jobs) < count and size < AHEAD_BYTES:
            job = self.next_for(worker_id)
            jobs.append(job)
            size += job.size
        return jobs

    def has_pinned(self, worker_id: int) -> bool:
        """Whether something is in line for this worker alone."""
        return self._pinned[worker_id].count > 0

    def is_pinned_next(self, worker_id: int) -> bool:
        """Whether what is in line for this worker alone came before all that is for any."""
        shared, own = self.line, self._pinned[worker_id]
        return not shared.count or own.first.queued_at <= shared.first.queued_at

    def next_for(self, worker_id: int) -> Job:
        """Whoever is next for this worker; only while something is in line for it."""
        self.waiting -= 1
        if not (self.has_pinned(worker_id) and self.is_pinned_next(worker_id)):
            return self.line.next()
        self.pinned -= 1
        return self._pinned[worker_id].next()

    def drop(self, job: Job) -> None:
        """``job`` has ended here."""
        self.waiting -= 1
        if job.seq == DELAYED:
            self.delayed -= 1
            if len(self._delays) > 2 * self.delayed + _KEPT_ANYWAY:
                self._delays = [entry for entry in self._delays if _is_alive(entry[2])]
                heapq.heapify(self._delays)
        elif job.options.task_worker is None:
            self.line.drop()
        elif self.is_stranded(job):
            self.stranded.remove(job)
        else:
            self.pinned -= 1
            self._pinned[job.options.task_worker].drop()

    # Numbers

    def is_stranded(self, job: Job) -> bool:
        """Whether ``job`` is for a number that is gone."""
        number = job.options.task_worker
        return number is not None and number >= len(self._pinned)

    def add_number(self) -> None:
        """There is one more."""
        self._pinned.append(_Line())

    def remove_number(self) -> None:
        """The highest one is gone; what is in line for it, or waits to be, is `stranded`."""
        line = self._pinned.pop()
        self.pinned -= line.count
        while line.count:
            self.stranded.append(line.next())
        for _, _, job in self._delays:
            if job.status is None and self.is_stranded(job):
                self.stranded.append(job)
                job.seq = QUEUED
                self.delayed -= 1
        self._delays = [entry for entry in self._delays if entry[2].seq == DELAYED]
        heapq.heapify(self._delays)

    # Time

    @property
    def due_at(self) -> float:
        """When to call `release` and `take_late`; infinite if never."""
        delays, limits = self._delays, self._limits
        return min(delays[0][0] if delays else math.inf, limits[0][0] if limits else math.inf)

    def release(self, now: float) -> None:
        """Put in line those whose next attempt is due."""
        while self._delays and self._delays[0][0] <= now:
            _, _, job = heapq.heappop(self._delays)
            if job.status is None:
                self.waiting -= 1
                self.delayed -= 1
                self.put(job, now)

    def take_late(self, now: float) -> list[Job]:
        """Those whose time to wait is over, unless they have ended; some may be with a worker."""
        late = []
        while self._limits and self._limits[0][0] <= now:
            job = heapq.heappop(self._limits)[2]()
            # One that waits for its next attempt, or does so once more, has a time of its own.
            if (
                job is not None
                and job.status is None
                and job.seq != DELAYED
                and now >= job.queued_at + job.options.queue_timeout
            ):
                late.append(job)
        return late


def _is_alive(job: Job | None) -> bool:
    return job is not None and job.status is None
