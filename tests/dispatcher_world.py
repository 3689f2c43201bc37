"""A dispatcher among model workers, and what must hold whatever happens to them.

The world knows by itself what it was asked and what its workers did, and compares that with what
the dispatcher says, after every step.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import attrs
from model_engine import ModelEngine, ModelWorker

from trioserver._tasks._job import DELAYED, QUEUED
from trioserver._tasks._policy import GRACE, Policy
from trioserver._tasks._recorder import MAX_HANDED
from trioserver._tasks._run_times import WINDOW
from trioserver._tasks._wire import Answer, Status, unpack_timeout

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from trioserver._tasks._books import Worker
    from trioserver._tasks._job import Job

ROUNDING = 1e-9
"""Of times that were added up in another order."""
_MAX_RINGS_AT_ONCE = 12
_RINGS_A_SECOND = 1100
"""Of the alarm, for one worker: a look a window at the most."""


@attrs.frozen
class Shape:
    """What one world is like."""

    workers: int
    policy: Policy
    places: int
    mean_run: float
    violence: float
    """The share of steps in which somebody dies, is stopped, or has its page spoilt."""
    has_options: bool
    """Whether jobs have limits, retries and pins."""
    changes: float
    """The share of steps in which a fresh worker takes a number, or there are more or fewer."""

    @classmethod
    def drawn(cls, random: Random, **given: Any) -> Shape:
        """Any shape, except for what is ``given``."""
        concurrency = random.choice([1, 1, random.randint(2, 5)])
        policy = Policy(
            concurrency=concurrency,
            grace=GRACE if concurrency > 1 else 0.0,
            max_window=random.choice([0, 1, 128, 128]),
            max_request=random.choice([0, 0, random.randint(1, 12)]),
            max_memory=random.choice([0, 0, 1000]),
        )
        drawn: dict[str, Any] = {
            "workers": random.randint(1, 4),
            "policy": policy,
            # Few places, so that jobs that run for long stand in the way of others.
            "places": random.choice([8, 12, MAX_HANDED]),
            "mean_run": random.choice([1e-6, 4e-5, 1e-3, 0.1]),
            "violence": random.choice([0.0, 0.02, 0.08]),
            "has_options": random.random() < 0.7,
            "changes": random.choice([0.0, 0.0, 0.03, 0.1]),
        }
        return cls(**drawn | given)


class Facts:
    """What the world knows of one job."""

    __slots__ = (
        "began_at",
        "cancelled",
        "entered",
        "finished",
        "is_over",
        "number",
        "posted_at",
    )

    def __init__(self, number: int, posted_at: float) -> None:
        self.number = number
        self.posted_at = posted_at
        self.began_at = -math.inf
        # Runs of it that have begun.
        self.entered = 0
        # The attempt that finished, and how.
        self.finished: tuple[int, int, bytes] | None = None
        # The attempt in which it was cancelled, and whether that was all that was to end it.
        self.cancelled: int | None = None
        self.is_over = False


class World(ModelEngine):
    """A model engine that knows what must hold at every moment."""

    def __init__(self, shape: Shape, random: Random) -> None:
        self.shape = shape
        self.facts: dict[Job, Facts] = {}
        self.alive: set[Job] = set()
        self.statuses = dict.fromkeys(Status, 0)
        self.stopped: set[int] = set()
        # Runs by the processes of now.
        self.runs: defaultdict[int, int] = defaultdict(int)
        # What workers had begun when they were told to leave for others.
        self.begun_before: dict[int, int] = {}
        # Attempts that have ended at numbers that are gone.
        self.forgotten = 0
        self.has_spoilt = False
        self._rang_at = -math.inf
        self._rings_at_once = 0
        self._rings = 0
        super().__init__(shape.workers, shape.policy, random, shape.places)

    # `Engine`, with an eye on what it is asked for

    def start(self, seat: int, jobs: Sequence[Job]) -> None:
        worker = self.workers[seat]
        books = self.dispatcher._books.workers[seat]
        assert books.ready, "a worker that is away is handed jobs"
        assert seat not in self.away
        assert seat not in self.leaving, "an old worker is handed jobs"
        assert not worker.is_retired, "a worker that leaves is handed jobs"
        assert not worker.is_killed, "a worker that was killed is handed jobs"
        assert not books.is_worn, "a worn worker is handed jobs"
        for job in jobs:
            assert job.options.task_worker in (None, self.number_of[seat]), "pinned to another one"
            assert job in self.alive
            assert job.seq > worker.last_seq, "numbers rise"
            worker.last_seq = job.seq
            place = job.seq % self.places
            assert place not in worker.taken, "two unreported jobs share a place"
            worker.taken[place] = job.seq
        super().start(seat, jobs)

    def unsent_reports(self, seat: int) -> list[Any]:
        reports = super().unsent_reports(seat)
        books = self.dispatcher._books.workers[seat]
        owed = [report[0] for report in reports if books.owes(report[0])]
        if owed and (books.slots > 1 or owed[0] == books.reported + 1):
            self._give_back_places(seat, owed)
        return reports

    def kill(self, seat: int) -> None:
        assert seat not in self.away
        assert not self.workers[seat].is_killed, "killed twice"
        handed = self.dispatcher._books.workers[seat].handed.values()
        begun_at = self.workers[seat].begun_at
        for_nothing = handed and not any(job.verdict for job in handed)
        assert not for_nothing or all(begun_at(job.seq) == math.inf for job in handed)
        super().kill(seat)

    def cancel(self, seat: int, seq: int) -> None:
        assert self.policy.grace
        super().cancel(seat, seq)

    def retire(self, seat: int) -> None:
        worker = self.workers[seat]
        assert not worker.is_retired
        assert not self.dispatcher._books.workers[seat].handed
        most = self.policy.max_request
        is_worn = (most and self.runs[seat] >= most - most // 4) or worker.was_large
        assert is_worn or seat in self.leaving
        super().retire(seat)

    def memory(self, seat: int) -> int | None:
        used = super().memory(seat)
        if used is not None and used > self.policy.max_memory > 0:
            self.workers[seat].was_large = True
        return used

    # What happens, with an eye on whether it may

    def post(self, count: int = 1, **options: Any) -> list[Job]:
        jobs = [self.job(**options) for _ in range(count)]
        for job in jobs:
            self.facts[job] = Facts(len(self.facts), self.now)
            self.alive.add(job)
            self.dispatcher.accept(job)
        return jobs

    def call_off(self, job: Job) -> None:
        """Cancel ``job``."""
        facts = self.facts[job]
        if job.status is None and facts.cancelled is None:
            facts.cancelled = job.attempt
            facts.is_over = job.verdict is None
        self.dispatcher.cancel(job, "test")

    def job_posts(self, job: Job, payload: bytes) -> tuple[Answer, int, str]:
        assert job in self.alive
        (posted,) = self.post()
        return Answer.ACCEPTED, self.facts[posted].number, ""

    def write_begun(self, number: int) -> None:
        worker = self.workers[number]
        seq, job = worker.orders[0]
        if not worker.is_revoked(seq):
            self.facts[job].began_at = self.now
        super().write_begun(number)

    def enter(self, number: int) -> bool:
        worker = self.workers[number]
        assert worker.at_the_door is not None
        seq, job = worker.at_the_door
        does_run = super().enter(number)
        if does_run:
            facts = self.facts[job]
            facts.entered += 1
            self.runs[number] += 1
            assert facts.entered <= job.options.retries + 1, "it runs too often"
            assert len(worker.running) <= self.policy.concurrency
            if not worker.is_spoilt:
                assert seq <= self.begun_before.get(number, seq), "it begins on an old worker"
                assert not facts.is_over, "it runs though it was cancelled"
                assert facts.entered <= job.attempt, "it runs twice in one attempt"
            if self.policy.max_request:
                assert self.runs[number] <= self.policy.max_request, "the worker runs too many"
        return does_run

    def finish_one(self, number: int, seq: int, status: Status) -> None:
        """A job ends in its worker, with words of its own."""
        job = self.workers[number].running[seq]
        facts = self.facts[job]
        body = b"" if status == Status.CANCELLED else b"%d in its run %d" % (facts.number, seq)
        facts.finished = job.attempt, status, body
        self.finish(number, status=status, body=body, seq=seq)

    def send(self, number: int) -> None:
        self._give_back_places(number, [report[0] for report in self.workers[number].unsent])
        super().send(number)

    def die(self, number: int, exit_code: int | None = -9) -> None:
        worker = self.workers[number]
        if not worker.is_spoilt:
            self._give_back_places(number, [report[0] for report in worker.unsent])
        # It may still be handed jobs when what was on its page is taken.
        books = self.dispatcher._books.workers[number]
        super().die(number, exit_code)
        if number in self.gone and books.number >= len(self.current):
            self.forgotten += books.runs_before + books.runs
        self.stopped.discard(number)
        self.memory_used.pop(number, None)
        self.runs[number] = 0

    def _make_way(self, seat: int) -> None:
        worker = self.workers[seat]
        self.begun_before[seat] = worker.begun[0]
        super()._make_way(seat)
        if seat in self.gone and self.number_of[seat] == len(self.current):
            books = self.dispatcher._books.workers[seat]
            self.forgotten += books.runs_before + books.runs

    @property
    def seats(self) -> list[int]:
        """Those that are not gone."""
        return [seat for seat in range(len(self.workers)) if seat not in self.gone]

    def ring(self) -> None:
        self._rings_at_once = self._rings_at_once + 1 if self.now == self._rang_at else 0
        self._rang_at = self.now
        self._rings += 1
        assert self._rings_at_once <= _MAX_RINGS_AT_ONCE, "the alarm rings for ever"
        super().ring()

    def pass_time(self, seconds: float) -> None:
        self._rings = 0
        super().pass_time(seconds)
        most = _MAX_RINGS_AT_ONCE + len(self.workers) * seconds * _RINGS_A_SECOND
        assert self._rings <= most + len(self.alive), "the alarm rings all the time"
        self._check_limits()

    def jobs_ended(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            assert job in self.alive, "a job ends twice, or was never posted"
            self.alive.discard(job)
            self._check_end(job)
        super().jobs_ended(jobs)

    def _give_back_places(self, number: int, seqs: Sequence[int]) -> None:
        taken = self.workers[number].taken
        if self.policy.concurrency == 1 and seqs:
            # It has met them in their order, so one tells of all before it.
            seqs = [seq for seq in taken.values() if seq <= max(seqs)]
        for seq in seqs:
            if taken.get(seq % self.places) == seq:
                del taken[seq % self.places]

    # What must hold

    def check(self) -> None:
        """After every step: each job in one place, counted right, and nobody forgotten."""
        books = self.dispatcher._books
        queue = books.queue
        places: list[Job] = []
        counts = []
        for number, line in [(None, queue.line), *enumerate(queue._pinned)]:
            before = len(places)
            for job in line.jobs:
                if job.status is None:
                    places.append(job)
                    assert (job.seq, job.worker_id) == (QUEUED, None)
                    assert job.options.task_worker == number
            counts.append(len(places) - before)
        assert len(queue._pinned) == len(books.current) == len(self.current)
        assert not queue.stranded, "a job is left for a number that is gone"
        before = len(places)
        places += [job for _, _, job in queue._delays if job.status is None]
        assert all(job.seq == DELAYED and job.worker_id is None for job in places[before:])
        assert all(job.verdict is None for job in places)
        assert not any(map(queue.is_stranded, places))
        counted = queue.shared, queue.pinned, queue.delayed
        assert counted == (counts[0], sum(counts[1:]), len(places) - before)

        slots, running = self.policy.concurrency, 0
        assert [worker.seat for worker in books.current] == self.current
        assert sorted(books.workers) == self.seats
        for worker in books.workers.values():
            places += worker.handed.values()
            running += min(len(worker.handed), slots)
            self._check_worker(worker)
        assert len(places) == len(self.alive)
        assert set(places) == self.alive, "a job is lost, or in two places"
        self._check_nobody_idles()
        assert self.counts == (len(places) - running, running)
        for job in places:
            cancelled = self.facts[job].cancelled
            assert cancelled is None or cancelled == job.attempt, "it is tried again"
            assert job.attempt <= job.options.retries + 1

    def _check_nobody_idles(self) -> None:
        """What the queue has for somebody is handed over now, or when the alarm rings."""
        placement = self.dispatcher._placement
        if not self.dispatcher._books.queue.shared:
            return
        worth_a_look = placement._worth_a_look
        chosen = placement._choose(min(placement.run_times.window, self.policy.max_window))
        placement._worth_a_look = worth_a_look
        rings_soon = self.alarm is not None and self.alarm <= self.now + WINDOW
        assert chosen is None or rings_soon, "a job waits that a worker could have"

    def _check_worker(self, worker: Worker) -> None:
        slots = self.policy.concurrency
        for seq, job in worker.handed.items():
            assert (job.worker_id, job.seq) == (worker.number, seq)
        assert len(worker.handed) <= slots + self.policy.max_window
        is_dying = worker.seat in self.away or self.workers[worker.seat].is_killed
        assert worker.ready or is_dying or not worker.handed
        assert not (worker.ready and worker.is_worn and not worker.handed), "left un-retired"
        assert worker.is_leaving == (worker.seat in self.leaving)
        assert worker.is_worn or not (worker.is_leaving and worker.ready), "an old one takes jobs"
        is_free = worker.ready and not worker.is_worn and len(worker.handed) < slots
        assert worker.seat in self.dispatcher._books.free or not is_free, (
            "a free worker is forgotten"
        )
        assert worker.seat not in self.dispatcher._books.free or worker.ready, (
            "one that is away is free"
        )

    def check_statistics(self) -> None:
        """What users are told is what the world counts."""
        told = self.dispatcher.statistics()
        assert told.is_balanced
        waiting, running = self.counts
        assert (told.posted, told.queued, told.running) == (len(self.facts), waiting, running)
        assert (
            told.completed,
            told.failed,
            told.cancelled,
            told.crashed,
            told.timed_out,
            told.abandoned,
        ) == (*(self.statuses[Status(number)] for number in range(5)), 0)
        again = sum(job.attempt - 1 for job in self.facts)
        ended = [job for job in self.facts if job.status is not None]
        unrun = [job for job in ended if job.worker_id is None]
        assert told.retried == again - sum(job.attempt > 1 for job in unrun)
        done = again + len(ended) - len(unrun)
        assert sum(worker.tasks_done for worker in told.workers) + self.forgotten == done
        assert [worker.id for worker in told.workers[: len(self.current)]] == [
            *range(len(self.current))
        ]
        old = [worker.state for worker in told.workers[len(self.current) :]]
        assert old == ["leaving"] * len(self.leaving)
        ready = [worker for worker in self.dispatcher._books.current if worker.ready]
        assert told.dead_workers == len(self.current) - len(ready)
        assert told.idle_workers == sum(not worker.handed for worker in ready)
        since = [job.queued_at for job in self.alive if job.worker_id is None and job.seq == QUEUED]
        oldest = self.now - min(since) if since else 0.0
        assert 0 <= told.oldest_queued <= oldest + ROUNDING

    def _check_limits(self) -> None:
        """After time has passed: nobody runs, or waits, for longer than it may."""
        for worker in self.dispatcher._books.workers.values():
            process = self.workers[worker.seat]
            if not worker.ready or process.is_spoilt:
                continue
            for job in worker.handed.values():
                if job.verdict is not None:
                    continue
                if job in process.running.values():
                    due = self.facts[job].began_at + max(job.options.timeout, WINDOW)
                    assert self.now <= due + ROUNDING, "it runs for too long"
                elif job.seq > process.begun[0]:
                    assert self.now <= job.queued_at + job.options.queue_timeout + ROUNDING
        for job in self.alive:
            if job.worker_id is None and job.seq == QUEUED:
                assert self.now <= job.queued_at + job.options.queue_timeout + ROUNDING

    def _check_end(self, job: Job) -> None:
        assert job.status is not None
        facts = self.facts[job]
        status = Status(job.status)
        self.statuses[status] += 1
        was_cancelled = facts.cancelled is not None
        pinned_to = job.options.task_worker
        is_stranded = pinned_to is not None and pinned_to >= len(self.current)
        is_last = job.attempt == job.options.retries + 1 or was_cancelled or is_stranded
        has_finished = facts.finished is not None and facts.finished[0] == job.attempt
        assert is_last or status in (Status.OK, Status.CANCELLED, Status.TIMED_OUT)
        if job.worker_id is None:
            assert status in (Status.CANCELLED, Status.TIMED_OUT)
            assert facts.entered < job.attempt, "it was told that it never began"
        match status:
            case Status.OK | Status.FAILED:
                assert facts.finished == (job.attempt, status, job.body)
            case Status.CRASHED:
                assert not was_cancelled
                assert self.has_spoilt or (facts.began_at > -math.inf and not has_finished)
            case Status.CANCELLED if is_stranded and not was_cancelled:
                assert job.body.decode() == f"there is no task worker {pinned_to} any more"
                assert job.worker_id is None
            case Status.CANCELLED:
                assert was_cancelled
                assert job.body == b"test"
            case Status.TIMED_OUT:
                assert not was_cancelled
                seconds, has_begun = unpack_timeout(job.body)
                assert has_begun == (job.worker_id is not None)
                if has_begun:
                    assert is_last
                    assert seconds == job.options.timeout
                    late = facts.began_at + seconds
                else:
                    assert seconds == job.options.queue_timeout
                    late = max(facts.posted_at, job.queued_at) + seconds
                assert self.has_spoilt or self.now >= late - ROUNDING, "it had time left"
            case _:
                raise AssertionError(f"no way to end: {status}")
        if has_finished and not self.has_spoilt:
            assert facts.finished is not None
            assert status == facts.finished[1] or facts.finished[1] == Status.CANCELLED


__all__ = ["ModelWorker", "Shape", "World"]
