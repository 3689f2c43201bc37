"""A pool over model workers in Trio's time: everybody who posts, hears and leaves, by seed.

The world counts what the pool lets in at the one door that all jobs pass, the dispatcher's
``accept``, and compares that with what posters, callers and ``on_finish`` come to know.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import attrs
import trio
from model_engine import ModelEngine
from pool_bench import FakeStream

from trioserver._settings import Settings
from trioserver._stopping import Stopping
from trioserver._tasks._dispatcher import Dispatcher
from trioserver._tasks._finishing import MAX_LOOPS
from trioserver._tasks._policy import GRACE, Policy
from trioserver._tasks._wire import Answer, Failure, Kind, Status
from trioserver._tasks._workers import _Alarm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from trioserver._tasks._job import Job
    from trioserver._tasks._pool import Pool

STOPPED = "the server stopped"


@attrs.frozen
class PoolShape:
    """What one world is like."""

    workers: int
    policy: Policy
    settings: Settings
    pause: float
    """Seconds between what workers do, on average."""
    violence: float
    """How often a worker dies instead of going on."""
    hangs: float
    """The share of tasks, and of calls of ``on_finish``, that never end by themselves."""
    changes: float
    """How often a fresh worker takes a number, or there are more or fewer, before one goes on."""
    stop_at: float
    is_hard: bool
    """Whether the body of the pool raises instead of leaving."""

    @classmethod
    def drawn(cls, random: Random) -> PoolShape:
        concurrency = random.choice([1, 1, random.randint(2, 4)])
        return cls(
            workers=random.randint(1, 3),
            policy=Policy(
                concurrency=concurrency,
                grace=GRACE if concurrency > 1 else 0.0,
                max_window=random.choice([0, 1, 128]),
                max_request=random.choice([0, 0, 5]),
            ),
            settings=Settings(
                max_queued_tasks=random.choice([1, 2, 5, 50]),
                max_queued_bytes=random.choice([100, 600, 10**6]),
                max_tasks_per_connection=random.choice([0, 0, 1, 3]),
            ),
            pause=random.choice([1e-4, 0.01, 0.1]),
            violence=random.choice([0.0, 0.05, 0.15]),
            hangs=random.choice([0.0, 0.0, 0.03]),
            changes=random.choice([0.0, 0.0, 0.03, 0.15]),
            stop_at=random.uniform(0.01, 1.5),
            is_hard=random.random() < 0.15,
        )


class CountingDispatcher(Dispatcher):
    """Tells its world what was accepted, and what was ended by the stop."""

    def accept(self, job: Job) -> None:
        super().accept(job)
        self._world.accepted([job])

    def accept_all(self, jobs: Sequence[Job]) -> None:
        super().accept_all(jobs)
        self._world.accepted(jobs)

    def cancel(self, job: Job, reason: str) -> None:
        if reason == STOPPED:
            assert job.status is None
            self._world.stopped_jobs.append(job)
        super().cancel(job, reason)

    @property
    def _world(self) -> PoolWorld:
        assert isinstance(self._engine, PoolWorld)
        return self._engine


class PoolWorld(ModelEngine):
    """The workers, the connections, and the ledger."""

    dispatcher_type = CountingDispatcher

    def __init__(self, shape: PoolShape, random: Random) -> None:
        self.shape = shape
        self.random = random
        self.pool: Pool
        self.stopping = Stopping(random.choice([0.05, 0.5, 3.0]))
        self.alarm_clock = _Alarm(self.clock)
        self.streams = [FakeStream() for _ in range(3)]
        self.trace: list[object] = []
        # Jobs by the number in their data; what has become of those numbers.
        self.jobs: dict[int, Job] = {}
        self.numbers: dict[Job, int] = {}
        self.alive: set[Job] = set()
        self.stopped_jobs: list[Job] = []
        self.refused: set[int] = set()
        self.heard: dict[int, str] = {}
        self.delivered = 0
        self.told: dict[int, int] = {}
        self.hanging: set[Job] = set()
        # Workers, old ones too, at the most.
        self._most_workers = shape.workers
        self._next_number = 0
        self._woken = trio.Event()
        super().__init__(shape.workers, shape.policy, random)

    def new_data(self) -> tuple[int, bytes]:
        """Data that nobody else posts."""
        self._next_number += 1
        return self._next_number, bytes(self.random.choice([0, 0, 50, 300]))

    # Time, which is Trio's

    def clock(self) -> float:
        try:
            return trio.current_time()
        except RuntimeError:  # before the run
            return 0.0

    def set_alarm(self, at: float) -> None:
        self.alarm_clock.set(at)

    # `Engine`: whoever is asked for something may have something to do

    def start(self, seat: int, jobs: Sequence[Job]) -> None:
        super().start(seat, jobs)
        self._woken.set()

    def kill(self, seat: int) -> None:
        super().kill(seat)
        self._woken.set()

    def retire(self, seat: int) -> None:
        super().retire(seat)
        self._woken.set()

    def cancel(self, seat: int, seq: int) -> None:
        super().cancel(seat, seq)
        self._woken.set()

    def answer_post(self, seat: int, seq: int, answer: Answer, task_id: int, reason: str) -> None:
        super().answer_post(seat, seq, answer, task_id, reason)
        self.trace.append(("answered", int(answer), task_id))

    # The ledger

    def accepted(self, jobs: Sequence[Job]) -> None:
        """Jobs have passed the door together."""
        for job in jobs:
            loaded = pickle.loads(job.payload)
            number = loaded[1][0][0] if job.kind == Kind.CALL else loaded[0]
            assert number not in self.jobs, "accepted twice"
            assert job.id == len(self.jobs), "ids are counted"
            self.jobs[number] = job
            self.numbers[job] = number
            self.alive.add(job)
            self.trace.append(("accepted", number))
        self.see_workers()
        settings, pool = self.shape.settings, self.pool
        assert self.dispatcher.waiting <= settings.max_queued_tasks
        total = sum(len(one.payload) for one in self.alive if one.status is None)
        alone = sum(one.status is None for one in self.alive) == 1
        assert total == pool._entrance._bytes
        assert total <= settings.max_queued_bytes or alone
        if settings.max_tasks_per_connection:
            streams = {job.stream for job in jobs if job.stream is not None}
            assert len(jobs) == 1 or not streams
            for stream in streams:
                own = [one for one in self.alive if one.stream is stream and one.status is None]
                assert len(own) <= settings.max_tasks_per_connection

    def see_workers(self) -> None:
        """Remember how many there were; each may have let one job more in, and die since."""
        self._most_workers = max(self._most_workers, len(self.workers) - len(self.gone))

    def check(self) -> None:
        """At every moment: bounds, and the sums."""
        self.alive = {job for job in self.alive if job.status is None}
        pool, settings, policy = self.pool, self.shape.settings, self.shape.policy
        assert set(pool._jobs.values()) == self.alive
        assert pool._entrance._bytes == sum(len(job.payload) for job in self.alive)
        waiting, running = self.counts
        assert waiting + running == len(self.alive)
        self.see_workers()
        most = settings.max_queued_tasks + self._most_workers * policy.concurrency
        assert waiting + running <= most
        # What is on its way to `on_finish`, where each call may post one more.
        assert (
            len(self.alive) + pool._entrance.unheard <= most + settings.max_queued_tasks + MAX_LOOPS
        )
        for admission in (pool._entrance._for_on_finish, pool._entrance._for_others):
            assert not admission.line or not admission._has_room(admission.line[0].job), (
                "one waits though there is room"
            )
        told = self.dispatcher.statistics()
        assert told.is_balanced
        assert told.posted == len(self.jobs)
        assert (told.queued, told.running) == (waiting, running)

    # The workers

    async def work(self) -> None:
        """Let workers do one thing after the other, for ever."""
        while True:
            await trio.sleep(self.random.expovariate(1 / self.shape.pause))
            self.now = trio.current_time()
            self._woken = trio.Event()
            has_moved = False
            if self.random.random() < self.shape.changes:
                self._change()
                has_moved = True
            for number in range(len(self.workers)):
                for _ in range(self.random.randint(1, 6)):
                    has_moved |= number not in self.gone and self._advance(number)
            self.check()
            if not has_moved:
                await self._woken.wait()

    def _advance(self, number: int) -> bool:  # noqa: C901  # one line a thing that can happen
        random, worker = self.random, self.workers[number]
        if number in self.away:
            self.replace(number)
        elif worker.is_killed or (worker.orders and random.random() < self.shape.violence / 4):
            self._lose(number, -9)
        elif worker.at_the_door:
            _, job = worker.at_the_door
            if self.enter(number):
                self.trace.append(("runs", self.numbers[job], job.attempt))
                if random.random() < self.shape.hangs:
                    self.hanging.add(job)
        elif worker.unsent and random.random() < 0.8:
            self.send(number)
        elif (
            worker.orders
            and len(worker.running) < self.policy.concurrency
            and random.random() < 0.7
        ):
            self.write_begun(number)
        elif worker.running:
            return self._go_on(number)
        elif worker.unsent:
            self.send(number)
        elif worker.orders:
            self.write_begun(number)
        elif worker.is_retired:
            self._lose(number, 0)
        else:
            return False
        return True

    def _change(self) -> None:
        """A fresh worker takes a number, or there is one more, or one fewer."""
        chance = self.random.random()
        if chance < 0.6:
            self.trace.append(("fresh", self.seat_fresh(self.random.randrange(len(self.current)))))
        elif chance < 0.8:
            self.trace.append(("one more", self.seat_fresh(len(self.current))))
        elif len(self.current) > 1:
            self.trace.append(("one fewer", self.dismiss()))

    def _lose(self, number: int, exit_code: int) -> None:
        self.trace.append(("dies", number))
        self.die(number, exit_code)

    def _go_on(self, number: int) -> bool:
        """A job posts, tells, fails, ends, or takes its worker along."""
        random, worker = self.random, self.workers[number]
        seq, job = random.choice(list(worker.running.items()))
        task = self.numbers[job]
        chance = random.random()
        if seq in worker.asked and chance < 0.7:
            self.finish(number, status=Status.CANCELLED, body=b"", seq=seq)
        elif job in self.hanging:
            return False
        elif chance < self.shape.violence:
            self._lose(number, 3)
        elif chance < 0.25:
            self.dispatcher.posted(number, seq, pickle.dumps(self.new_data()))
        elif chance < 0.35:
            self.told[task] = self.told.get(task, 0) + 1
            self.dispatcher.progressed(number, [(seq, pickle.dumps(self.told[task]))])
        elif chance < 0.5:
            failure = Failure("ValueError: no good", "", b"").pack()
            self.finish(number, status=Status.FAILED, body=failure, seq=seq)
        else:
            self.finish(number, body=pickle.dumps(task), seq=seq)
        return True

    def drawn_options(self) -> dict[str, Any]:
        random = self.random
        options: dict[str, Any] = dict.fromkeys(("timeout", "task_worker"), None)
        options |= {"queue_timeout": float("inf"), "retries": 0}
        if random.random() < 0.3:
            options["timeout"] = random.uniform(0.01, 0.5)
        if random.random() < 0.3:
            options["queue_timeout"] = random.uniform(0.01, 0.5)
        if random.random() < 0.3:
            options["retries"] = random.randint(1, 2)
        if random.random() < 0.2:
            options["task_worker"] = random.randrange(self.dispatcher.workers)
        return options
