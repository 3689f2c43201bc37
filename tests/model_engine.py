"""An engine in plain Python, driven step by step: what a dispatcher decides, without processes.

A worker of it does what a real one does, in steps between which anything else can happen: it writes
*begun*, looks whether the order was revoked, runs, keeps its report, sends what it has kept, dies.
"""

from __future__ import annotations

import math
import pickle
from collections import deque
from random import Random
from typing import TYPE_CHECKING, Any, Final

from trioserver._tasks._dispatcher import Dispatcher
from trioserver._tasks._job import Job
from trioserver._tasks._options import PLAIN, Options
from trioserver._tasks._policy import Policy
from trioserver._tasks._recorder import MAX_HANDED
from trioserver._tasks._wire import Kind, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioserver._tasks._wire import Answer, Report


RESULT: Final = pickle.dumps("result")
"""What every task of a model engine returns, as it travels."""


class ModelWorker:
    """What is in one worker's process: its orders, its flight recorder, what it does now.

    Args:
      places: Of its flight recorder; a job has the one of its number modulo this.
    """

    def __init__(self, places: int = MAX_HANDED) -> None:
        self.places = places
        self.orders: deque[tuple[int, Job]] = deque()
        # Begun and not yet looked at, running, finished and not sent.
        self.at_the_door: tuple[int, Job] | None = None
        self.running: dict[int, Job] = {}
        self.unsent: list[Report] = []
        # Running jobs that were asked to end themselves.
        self.asked: set[int] = set()
        self.is_killed = False
        self.is_retired = False
        self.is_spoilt = False
        # For a world that checks: places taken and by whom, the last number, a look at its memory.
        self.taken: dict[int, int] = {}
        self.last_seq = 0
        self.was_large = False
        # The flight recorder: the last job begun, and by place when it began and what is revoked.
        self.begun = (0, 0.0)
        self._begun_at: dict[int, float] = {}
        self._revoked: dict[int, int] = {}

    def begin(self, seq: int, now: float) -> None:
        self.begun = seq, now
        self._begun_at[seq % self.places] = now

    def end(self, seq: int) -> None:
        self._begun_at[seq % self.places] = math.inf

    def begun_at(self, seq: int) -> float:
        return math.inf if self.is_spoilt else self._begun_at[seq % self.places]

    def revoke(self, seq: int) -> bool:
        self._revoked[seq % self.places] = seq
        return not self.is_spoilt and self.begun[0] < seq

    def is_revoked(self, seq: int) -> bool:
        return self._revoked.get(seq % self.places) == seq


class ModelEngine:
    """Workers, a clock that stands still unless told, and a dispatcher over them.

    Args:
      workers: How many; all are ready from the start.
      policy: The dispatcher's.
      random: The dispatcher's.
      places: Of each worker's flight recorder.
    """

    dispatcher_type = Dispatcher
    is_gone = False

    def __init__(
        self,
        workers: int = 1,
        policy: Policy | None = None,
        random: Random | None = None,
        places: int = MAX_HANDED,
    ) -> None:
        self.now = 100.0
        self.alarm: float | None = None
        self.places = places
        self.workers = [ModelWorker(places) for _ in range(workers)]
        """By seat, those too that are gone."""
        self.number_of = list(range(workers))
        """By seat."""
        self.current = list(range(workers))
        """Seats, by number."""
        self.leaving: set[int] = set()
        self.gone: set[int] = set()
        self.away: set[int] = set()
        """Seats whose process is dead, or has yet to come."""
        self.killed: list[int] = []
        self.retired: list[int] = []
        self.cancelled: list[tuple[int, int]] = []
        self.memory_used: dict[int, int] = {}
        self.answers: list[tuple[int, Answer, int, str]] = []
        self.messages: list[tuple[int, list[Job]]] = []
        """What was handed to whom, one entry a call of `start`."""
        self.ran: list[Job] = []
        """Jobs that began to run, in that order."""
        self.ended: list[Job] = []
        self.policy = policy or Policy()
        self.dispatcher = self.dispatcher_type(
            self, workers, self.clock, self.set_alarm, self.policy, random or Random(0)
        )
        for number in range(workers):
            self.dispatcher.worker_ready(number)

    # `Engine`

    def start(self, seat: int, jobs: Sequence[Job]) -> None:
        self.messages.append((seat, list(jobs)))
        self.workers[seat].orders.extend((job.seq, job) for job in jobs)

    def revoke(self, seat: int, seq: int) -> bool:
        return self.workers[seat].revoke(seq)

    def kill(self, seat: int) -> None:
        self.killed.append(seat)
        self.workers[seat].is_killed = True

    def cancel(self, seat: int, seq: int) -> None:
        self.cancelled.append((seat, seq))
        worker = self.workers[seat]
        # Begun and not looked at: the worker hears of it when it runs.
        if seq in worker.running or (worker.at_the_door and worker.at_the_door[0] == seq):
            worker.asked.add(seq)

    def retire(self, seat: int) -> None:
        self.retired.append(seat)
        self.workers[seat].is_retired = True

    def answer_post(self, seat: int, seq: int, answer: Answer, task_id: int, reason: str) -> None:
        self.answers.append((seq, answer, task_id, reason))

    def unsent_reports(self, seat: int) -> list[Report]:
        worker = self.workers[seat]
        return [] if worker.is_spoilt else list(worker.unsent)

    def begun(self, seat: int) -> tuple[int, float] | None:
        worker = self.workers[seat]
        return None if worker.is_spoilt else worker.begun

    def begun_at(self, seat: int, seq: int) -> float:
        return self.workers[seat].begun_at(seq)

    def heard_at(self, seat: int) -> float:
        return 0.0

    def pid(self, seat: int) -> int | None:
        return 1000 + seat

    def memory(self, seat: int) -> int | None:
        return self.memory_used.get(seat)

    # `Sink`

    def jobs_ended(self, jobs: Sequence[Job]) -> None:
        assert all(job.status is not None for job in jobs)
        self.ended += jobs

    def job_progressed(self, job: Job, body: bytes) -> None:
        raise AssertionError("no model job tells anything")

    def job_posts(self, job: Job, payload: bytes) -> tuple[Answer, int, str]:
        raise AssertionError("no model job posts")

    # What a test does

    def job(self, **options: Any) -> Job:
        """A job that is not posted yet."""
        return Job(Kind.TASK, b"", self, Options(**options) if options else PLAIN)

    def post(self, count: int = 1, **options: Any) -> list[Job]:
        """Post new jobs."""
        jobs = [self.job(**options) for _ in range(count)]
        for job in jobs:
            self.dispatcher.accept(job)
        return jobs

    def post_one(self, **options: Any) -> Job:
        (job,) = self.post(**options)
        return job

    def write_begun(self, number: int) -> None:
        """The worker takes its next order and writes that it begins."""
        worker = self.workers[number]
        seq, job = worker.at_the_door = worker.orders.popleft()
        worker.begin(seq, self.now)
        assert seq > 0, job

    def enter(self, number: int) -> bool:
        """The worker looks whether the order was revoked: it runs, or is skipped and reported."""
        worker = self.workers[number]
        assert worker.at_the_door is not None
        seq, job = worker.at_the_door
        worker.at_the_door = None
        if worker.is_revoked(seq):
            worker.asked.discard(seq)
            worker.unsent.append((seq, Status.SKIPPED, self.now, 0.0, b""))
            return False
        worker.running[seq] = job
        self.ran.append(job)
        return True

    def begin(self, number: int) -> Job | None:
        """The worker takes its next order; the job if it runs, None if it was revoked."""
        self.write_begun(number)
        worker = self.workers[number]
        return worker.running[worker.begun[0]] if self.enter(number) else None

    def finish(
        self,
        number: int,
        ran: float | None = None,
        status: Status = Status.OK,
        body: bytes = RESULT,
        seq: int | None = None,
    ) -> None:
        """What runs ends after ``ran`` seconds by the clock; its report is kept.

        Where several run, ``seq`` is the one that ends; else it is the first.
        """
        worker = self.workers[number]
        if seq is None:
            seq = next(iter(worker.running))
        del worker.running[seq]
        worker.asked.discard(seq)
        # The worker knows it by itself; what it has written may be gone.
        begun = worker._begun_at[seq % worker.places]
        if ran is not None:
            self.now = max(self.now, begun + ran)
        worker.end(seq)
        worker.unsent.append((seq, status, begun, self.now - begun, body))

    def send(self, number: int) -> None:
        """The worker sends what it has kept."""
        worker = self.workers[number]
        reports, worker.unsent = worker.unsent, []
        self.dispatcher.reported(number, reports)

    def end(self, number: int, ran: float = 0.0) -> None:
        """What runs ends, and the worker says so at once."""
        self.finish(number, ran)
        self.send(number)

    def run(self, number: int, ran: float = 0.0) -> Job | None:
        """The worker runs its next order and says so at once."""
        job = self.begin(number)
        if job is None:
            self.send(number)
        else:
            self.end(number, ran)
        return job

    def run_out(self) -> None:
        """All workers run whatever there is."""
        while any(worker.orders for worker in self.workers):
            for number, worker in enumerate(self.workers):
                if worker.orders:
                    self.run(number)

    def begin_next(self, number: int) -> Job:
        """The worker skips what was revoked, and begins what was not."""
        while (job := self.begin(number)) is None:
            self.send(number)
        return job

    def begin_concurrently(self, number: int) -> Job:
        """The worker begins its next order beside those that it runs."""
        worker = self.workers[number]
        seq, job = worker.orders.popleft()
        worker.begin(seq, self.now)
        worker.running[seq] = job
        self.ran.append(job)
        return job

    def learn(self, ran: float, runs: int = 100) -> None:
        """Let the dispatcher see many tasks of ``ran`` seconds."""
        for _ in range(runs):
            self.post()
            for number, worker in enumerate(self.workers):
                if worker.orders:
                    self.run(number, ran)
        self.ended.clear()
        self.messages.clear()
        self.ran.clear()

    def die(self, number: int, exit_code: int | None = -9) -> None:
        """The worker dies; what it had kept is read from its page."""
        worker = self.workers[number]
        if worker.unsent and not worker.is_spoilt:
            self.dispatcher.reported(number, worker.unsent)
        self.away.add(number)
        if number in self.leaving:
            self._go(number)
        self.dispatcher.worker_died(number, exit_code, None if worker.is_spoilt else worker.begun)
        self.workers[number] = ModelWorker(self.places)

    def replace(self, number: int) -> None:
        """Another process takes the dead one's place."""
        self.away.discard(number)
        self.dispatcher.worker_ready(number)

    def seat_fresh(self, number: int) -> int:
        """A fresh worker, which is ready, takes ``number``: its seat."""
        seat = len(self.workers)
        self.workers.append(ModelWorker(self.places))
        self.number_of.append(number)
        if number < len(self.current):
            self._make_way(self.current[number])
        self.current[number : number + 1] = [seat]
        self.dispatcher.worker_seated(seat, number)
        self.dispatcher.worker_ready(seat)
        return seat

    def dismiss(self) -> int:
        """The highest number is gone: the seat of whoever had it."""
        seat = self.current.pop()
        self._make_way(seat)
        self.dispatcher.worker_dismissed(self.number_of[seat])
        return seat

    def _make_way(self, seat: int) -> None:
        if seat in self.away:
            self._go(seat)
        else:
            self.leaving.add(seat)

    def _go(self, seat: int) -> None:
        self.leaving.discard(seat)
        self.away.discard(seat)
        self.gone.add(seat)

    def pass_time(self, seconds: float) -> None:
        """Let the clock go on, and the alarm ring if it is due."""
        until = self.now + seconds
        while self.alarm is not None and self.alarm <= until:
            self.now = max(self.now, self.alarm)
            self.ring()
        self.now = until

    def ring(self) -> None:
        """The alarm rings."""
        self.alarm = None
        self.dispatcher.look_after()

    def given(self, number: int) -> list[Job]:
        """What the worker has in hand and was not taken back, in the order of its orders."""
        worker = self.workers[number]
        first = [worker.at_the_door[1]] if worker.at_the_door else []
        rest = [job for seq, job in worker.orders if not worker.is_revoked(seq)]
        return [*worker.running.values(), *first, *rest]

    @property
    def counts(self) -> tuple[int, int]:
        """Waiting and running, as the dispatcher has them."""
        return self.dispatcher.waiting, self.dispatcher.running

    def clock(self) -> float:
        """The dispatcher's clock."""
        return self.now

    def set_alarm(self, at: float) -> None:
        """The dispatcher's alarm."""
        self.alarm = at if self.alarm is None else min(self.alarm, at)
