"""Where every job is that has not ended: in the queue, or handed to one worker. No decisions."""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING, Final

from trioserver._tasks._queue import Queue
from trioserver._tasks._recorder import MAX_HANDED
from trioserver._tasks._run_times import AHEAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioserver._tasks._job import Job

_LARGE: Final = AHEAD_BYTES // MAX_HANDED
"""Bytes of data from which on it is counted; as much less as a worker may hold is nothing."""


class Worker:
    """A worker as the dispatcher sees it.

    Args:
      seat: By which the engine knows it.
      number: By which users know it.
      concurrency: How many jobs it runs at a time.
    """

    __slots__ = (
        "due_at",
        "ending",
        "give_up_at",
        "handed",
        "heard_at",
        "holds",
        "is_dead",
        "is_held",
        "is_leaving",
        "is_worn",
        "large",
        "large_bytes",
        "life",
        "look_at",
        "looks",
        "next_seq",
        "number",
        "places",
        "probe_at",
        "probe_begun",
        "ready",
        "reported",
        "runs",
        "runs_before",
        "seat",
        "settled",
        "slots",
    )

    def __init__(self, seat: int, number: int, concurrency: int) -> None:
        self.seat = seat
        self.number = number
        self.slots = concurrency
        self.ready = False
        # Whether nobody sits there now: its process is dead, or has yet to come.
        self.is_dead = True
        # In the order in which they begin; the first ones run, or will in a moment.
        self.handed: dict[int, Job] = {}
        self.next_seq = 1
        # The last job that it has done with, run or skipped.
        self.reported = 0
        # Places on its page (`seq % MAX_HANDED`) that are taken, and by which job; None where jobs
        # end in their order and the places are those from `reported` to `next_seq`.
        self.places: dict[int, int] | None = None if concurrency == 1 else {}
        # When it last made progress: took up work after none, or reported.
        self.heard_at = 0.0
        # When to look at it next, should it make none, and after how many looks in vain.
        self.look_at = 0.0
        self.looks = 0
        # When to give it up, since a look has found that it begins nothing of what it has.
        self.give_up_at = math.inf
        # Whether it begins nothing although it could, since one of those that it runs holds up the
        # others; when to see if it does, what it had begun when that was last seen, and how often
        # it has been found so in a row. Only where it runs several at a time.
        self.is_held = False
        self.probe_at = math.inf
        self.probe_begun = -1
        self.holds = 0
        # Jobs of large data that it has not reported, revoked ones too, and how large they are.
        self.large: dict[int, int] = {}
        self.large_bytes = 0
        # Nothing new can be learnt of it before its running task ends.
        self.settled = False
        # No limit of time that concerns its jobs is over before this.
        self.due_at = math.inf
        # Jobs that were asked to end, and when that must have had its effect.
        self.ending: dict[int, float] = {}
        # Jobs that its process has run, may run, and that its earlier processes have run.
        self.runs = 0
        self.life: float = math.inf
        self.runs_before = 0
        # It gets nothing more, and leaves when its hands are empty.
        self.is_worn = False
        # Its number is another one's by now, or nobody's: its end is the end of its seat.
        self.is_leaving = False

    def progressed(self, now: float) -> None:
        """It took up work after none, or reported."""
        self.heard_at = now
        self.look_at = 0.0
        self.looks = 0
        self.give_up_at = math.inf
        self.settled = False
        self.is_held = False
        self.holds = 0

    @property
    def owes_reports(self) -> bool:
        """Whether it has been handed what it has not reported yet, as run or as skipped."""
        if self.places is not None:
            return bool(self.places)
        return self.reported < self.next_seq - 1

    def owes(self, seq: int) -> bool:
        """Whether it has not reported this one yet."""
        if self.places is not None:
            return self.places.get(seq % MAX_HANDED) == seq
        return seq > self.reported

    @property
    def first(self) -> int:
        """The job that runs, or will in a moment; only while something is handed."""
        return next(iter(self.handed))

    @property
    def has_ahead(self) -> bool:
        """Whether it has more in hand than it can run."""
        return len(self.handed) > self.slots

    @property
    def last_to_run(self) -> int:
        """The last of those that run, or will in a moment; only while it `has_ahead`."""
        return self.first if self.slots == 1 else next(islice(self.handed, self.slots - 1, None))

    def room(self, window: int) -> int:
        """How many more it may hold, so that ``window`` of them wait there."""
        if self.is_worn or self.is_held or self.large_bytes >= AHEAD_BYTES:
            return 0
        in_hand = len(self.handed)
        places = len(self.places) if self.places is not None else self.next_seq - self.reported
        room = min(self.slots + window - in_hand, MAX_HANDED - places)
        return room if self.life == math.inf else min(room, int(self.life) - self.runs - in_hand)

    def take_seqs(self, count: int) -> Sequence[int]:
        """The next numbers for so many jobs of its."""
        seq = self.next_seq
        if self.places is None:
            self.next_seq = seq + count
            return range(seq, seq + count)
        seqs: list[int] = []
        while len(seqs) < count:
            place = seq % MAX_HANDED
            if place not in self.places:
                self.places[place] = seq
                seqs.append(seq)
            seq += 1
        self.next_seq = seq
        return seqs

    def done_with(self, seqs: Sequence[int]) -> None:
        """It has reported these, so its page needs their places no longer."""
        if self.large:
            self.large_bytes -= sum(self.large.pop(seq, 0) for seq in seqs)
        if self.places is None:
            self.reported = max(self.reported, seqs[-1])
            return
        self.reported = max(self.reported, *seqs)
        for seq in seqs:
            # Else it is heard for the second time, and the place may be another job's by now.
            if self.places.get(seq % MAX_HANDED) == seq:
                del self.places[seq % MAX_HANDED]


class Books:
    """The queue and the workers' hands, and the sums over both.

    Args:
      workers: How many; their numbers, and their seats, are 0 to ``workers`` - 1.
      concurrency: How many jobs each runs at a time.
    """

    def __init__(self, workers: int, concurrency: int) -> None:
        self.concurrency = concurrency
        self.current = [Worker(number, number, concurrency) for number in range(workers)]
        """Who has which number."""
        self.workers = {worker.seat: worker for worker in self.current}
        """Who has which seat: these, and those that are leaving."""
        self.queue = Queue(workers)
        # Ready workers that could begin one more job at once. Whoever was busy last comes first: it
        # may be awake still (see `_patience`), and has in its core's caches what tasks need. So has
        # one that was stopped since then, which `_watching` finds out.
        self.free: OrderedDict[int, Worker] = OrderedDict()
        self.handed = 0
        self.running = 0

    @property
    def waiting(self) -> int:
        """Jobs that have not begun: queued, or handed ahead of what its worker can run."""
        return self.queue.waiting + self.handed - self.running

    @property
    def idle_places(self) -> int:
        """Jobs that free workers could begin at once."""
        return sum(worker.slots - len(worker.handed) for worker in self.free.values())

    def add_worker(self, worker: Worker, life: float) -> None:
        """It has a new process, whose flight recorder says that 0 was begun last."""
        worker.ready = True
        worker.is_dead = False
        worker.next_seq = 1
        worker.reported = 0
        worker.runs_before += worker.runs
        worker.runs = 0
        worker.life = life
        worker.is_held = False
        worker.large.clear()
        worker.large_bytes = 0
        if worker.places is not None:
            worker.places.clear()
        self.free[worker.seat] = worker

    def remove_worker(self, worker: Worker) -> None:
        """Nothing more can be handed to it."""
        worker.ready = False
        worker.probe_at = math.inf
        self.free.pop(worker.seat, None)

    def holder(self, job: Job) -> Worker:
        """Who has ``job`` in hand; only while somebody has."""
        assert job.worker_id is not None
        if job.worker_id < len(self.current):
            worker = self.current[job.worker_id]
            if worker.handed.get(job.seq) is job:
                return worker
        return next(one for one in self.workers.values() if one.handed.get(job.seq) is job)

    def hand(self, worker: Worker, jobs: Sequence[Job], now: float) -> None:
        """Put ``jobs`` into its hands."""
        handed = worker.handed
        before = len(handed)
        # One that has yet to skip what was revoked has been silent for longer than that.
        if not handed and not worker.owes_reports:
            worker.progressed(now)
        number = worker.number
        for seq, job in zip(worker.take_seqs(len(jobs)), jobs, strict=True):
            job.seq = seq
            job.worker_id = number
            handed[seq] = job
            size = job.size
            if size > _LARGE:
                worker.large[seq] = size
                worker.large_bytes += size
        self.handed += len(jobs)
        after = len(handed)
        self.running += min(after, worker.slots) - min(before, worker.slots)
        if after >= worker.slots:
            self.free.pop(worker.seat, None)

    def take(self, worker: Worker, seqs: Sequence[int]) -> list[Job | None]:
        """Take jobs off its hands; None in the place of one that is not there (any more)."""
        handed, slots = worker.handed, worker.slots
        before = len(handed)
        jobs = [handed.pop(seq, None) for seq in seqs]
        left = len(handed)
        self.handed -= before - left
        if left < slots:
            self.running -= min(before, slots) - left
            if before >= slots and worker.ready and not worker.is_worn:
                self.free[worker.seat] = worker
                if not worker.owes_reports:  # else it may be stopped
                    self.free.move_to_end(worker.seat, last=False)
        if worker.ending:
            for seq in seqs:
                worker.ending.pop(seq, None)
        return jobs
