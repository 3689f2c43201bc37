"""What the end of an attempt means: the end of its job, one more attempt, or nothing at all."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from trioserver._tasks._wire import Status, pack_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from trioserver._tasks._job import Job
    from trioserver._tasks._queue import Queue
    from trioserver._tasks._statistics import Counters

_SINK: Final = attrgetter("sink")
_OK: Final = int(Status.OK)
_RETRIED: Final = frozenset({Status.FAILED, Status.TIMED_OUT, Status.CRASHED})
_FIRST_DELAY: Final = 0.1
_MAX_DELAY: Final = 30.0
_MAX_DOUBLINGS: Final = 20
_JITTER: Final = 0.25
"""The part of a delay by which it may be longer, so that tasks that failed together part."""


class Attempts:
    """Ends jobs, or has them tried again.

    Args:
      queue: Where those wait that are tried again.
      counters: What is counted on the way.
      clock: The time.
      set_alarm: Asks for a look at the queue at a time.
      random: Of delays.
    """

    def __init__(
        self,
        queue: Queue,
        counters: Counters,
        clock: Callable[[], float],
        set_alarm: Callable[[float], None],
        random: Random,
    ) -> None:
        self._queue = queue
        self._counters = counters
        self._clock = clock
        self._set_alarm = set_alarm
        self._random = random

    def ended(self, job: Job, status: int, body: bytes) -> None:
        """An attempt has ended so; nobody has ``job`` in hand any more."""
        is_cancelled = job.verdict is not None and job.verdict[0] == Status.CANCELLED
        if (
            status in _RETRIED
            and job.attempt <= job.options.retries
            and not is_cancelled
            # Where nobody can try it again this was its last attempt.
            and not self._queue.is_stranded(job)
        ):
            self._try_again(job)
            return
        self._counters.waits.append(job.begun_at - job.queued_at)
        self._counters.runs.append(job.ran)
        self._end(job, status, body)

    def ended_well(self, jobs: Sequence[Job]) -> None:
        """Attempts have ended with results, and their jobs say so: nearly all do."""
        counters = self._counters
        if len(jobs) == 1:  # somebody waits for it, and groups cost more than all the rest
            self.ended(jobs[0], _OK, jobs[0].body)
            return
        counters.waits.extend([job.begun_at - job.queued_at for job in jobs])
        counters.runs.extend([job.ran for job in jobs])
        for sink, group in groupby(jobs, _SINK):
            ended = list(group)
            if sink.is_gone:
                counters.abandoned += len(ended)
            else:
                counters.ended[_OK] += len(ended)
            sink.jobs_ended(ended)

    def end_unrun(self, job: Job, status: int, body: bytes) -> None:
        """End ``job``, whose attempt of now has not begun and was none."""
        if job.attempt > 1:
            self._counters.retried -= 1
        job.worker_id = None
        job.begun_at = self._clock()
        self._end(job, status, body)

    def not_run(self, jobs: Sequence[Job]) -> None:
        """Take jobs that looked as if they had begun, and turned out never to have run."""
        now = self._clock()
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
        self._queue.put_back(back)
        for job, status, body in ended:
            self.end_unrun(job, status, body)

    def _try_again(self, job: Job) -> None:
        delay = min(_FIRST_DELAY * 2.0 ** min(job.attempt - 1, _MAX_DOUBLINGS), _MAX_DELAY)
        delay *= 1 + self._random.uniform(0, _JITTER)
        job.attempt += 1
        job.worker_id = None
        job.verdict = None
        self._counters.retried += 1
        self._queue.delay(job, self._clock() + delay)
        self._set_alarm(self._queue.due_at)

    def _end(self, job: Job, status: int, body: bytes) -> None:
        if job.sink.is_gone:
            self._counters.abandoned += 1
        else:
            self._counters.ended[status] += 1
        job.status = status
        job.body = body
        job.sink.jobs_ended([job])
