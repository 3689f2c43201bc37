"""The dispatcher among workers that begin, end, report, race and die at every point, by seed.

A failing seed is the whole report: run it alone, and it does the same again.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from model_engine import RESULT, ModelEngine

from trioserver._tasks._recorder import MAX_HANDED
from trioserver._tasks._sync_loop import SEND_AT_ONCE_AFTER
from trioserver._tasks._wire import Status

if TYPE_CHECKING:
    from trioserver._tasks._job import Job

SEEDS_A_TEST = 25
STEPS = 150


class Ledger(ModelEngine):
    """A model engine that knows what must hold at every moment."""

    def __init__(self, workers: int) -> None:
        self.ended_set: set[Job] = set()
        self.ran_set: set[Job] = set()
        self.posted: list[Job] = []
        super().__init__(workers)
        self.has_spoilt = False
        self.finished: set[Job] = set()
        self.entered: set[Job] = set()
        self.dead: set[int] = set()

    def post(self, count: int = 1, **options: Any) -> list[Job]:
        jobs = super().post(count, **options)
        self.posted += jobs
        return jobs

    def write_begun(self, number: int) -> None:
        super().write_begun(number)
        door = self.workers[number].at_the_door
        assert door is not None
        self.entered.add(door[1])

    def finish(
        self,
        number: int,
        ran: float | None = None,
        status: Status = Status.OK,
        body: bytes = RESULT,
    ) -> None:
        running = self.workers[number].running
        assert running is not None
        self.finished.add(running[1])
        super().finish(number, ran, status, body)

    def check(self) -> None:
        dispatcher = self.dispatcher
        books = dispatcher._books
        queued = [job for job in books.queue._shared._jobs if job.status is None]
        handed = [job for worker in books.workers for job in worker.handed.values()]
        busy = [worker for worker in books.workers if worker.handed]

        alive = {*queued, *handed}
        assert len(alive) == len(queued) + len(handed) == len(self.posted) - len(self.ended)
        assert all(job.status is None for job in alive)
        assert self.counts == (len(queued) + len(handed) - len(busy), len(busy))
        assert set(books.free) == {
            worker.id for worker in books.workers if worker.ready and not worker.handed
        }
        assert all(job.worker_id is None for job in queued)
        assert all(len(worker.orders) < MAX_HANDED for worker in self.workers)

    def enter(self, number: int) -> bool:
        door = self.workers[number].at_the_door
        assert door is not None
        does_run = super().enter(number)
        if does_run:
            assert door[1] not in self.ran_set, "a job runs twice"
            self.ran_set.add(door[1])
        return does_run

    def job_ended(self, job: Job) -> None:
        assert job not in self.ended_set, "a job ends twice"
        self.ended_set.add(job)
        super().job_ended(job)
        self.check_end(job)

    def check_end(self, job: Job) -> None:
        match job.status:
            case Status.OK:
                assert job in self.finished
            case Status.CRASHED:
                assert self.has_spoilt or (job in self.entered and job not in self.finished)
            case Status.CANCELLED if job.worker_id is None:
                assert job not in self.ran_set, "it was told that it never began"
            case Status.CANCELLED:
                assert job.verdict is not None
                assert self.has_spoilt or (job in self.entered and job not in self.finished)
            case _:
                pytest.fail(f"no way to end: {job.status}")


def step(ledger: Ledger, random: Random, mean_run: float, violence: float) -> None:
    """Let one thing happen somewhere."""
    number = random.randrange(len(ledger.workers))
    worker = ledger.workers[number]
    chance = random.random()
    if chance < 0.15:
        ledger.post(random.choice([1, 1, 2, 5, 40]))
    elif chance < 0.15 + violence and ledger.posted:
        ledger.dispatcher.cancel(random.choice(ledger.posted[-60:]), "test")
    elif chance < 0.15 + 2 * violence and number not in ledger.dead:
        if random.random() < 0.1:
            worker.is_spoilt = ledger.has_spoilt = True
        ledger.die(number, random.choice([None, 0, 3, -9]))
        ledger.dead.add(number)
    elif chance < 0.35:
        ledger.pass_time(random.choice([1e-6, 1e-4, 3e-3, 1.0]))
    else:
        advance(ledger, random, number, mean_run)


def advance(ledger: Ledger, random: Random, number: int, mean_run: float) -> None:
    """Let a worker do the next thing that it can do."""
    worker = ledger.workers[number]
    if number in ledger.dead:
        ledger.replace(number)
        ledger.dead.discard(number)
    elif worker.is_killed:
        ledger.die(number)
        ledger.dead.add(number)
    elif worker.at_the_door:
        ledger.enter(number)
    elif worker.running:
        ran = mean_run * random.choice([0.5, 1.0, 1.5, 40.0])
        ledger.finish(number, ran)
        if worker.unsent[-1][3] >= SEND_AT_ONCE_AFTER:
            ledger.send(number)
    elif worker.orders and random.random() < 0.9:
        ledger.write_begun(number)
    elif worker.unsent:
        ledger.send(number)


def drain(ledger: Ledger, random: Random, mean_run: float, stuck: int | None = None) -> None:
    """Let the workers go on until nothing is left to do, except for one that is ``stuck``."""
    for round_ in range(10_000):
        if len(ledger.ended) == len(ledger.posted) - (stuck is not None):
            return
        for number, worker in enumerate(ledger.workers):
            if worker.is_killed:
                ledger.die(number)
                ledger.dead.add(number)
            if number != stuck:
                advance(ledger, random, number, mean_run)
        ledger.pass_time(1e-4)
        if round_ % 20 == 0:
            ledger.check()
    pytest.fail("jobs are left that nobody runs")


@pytest.mark.parametrize("first_seed", range(0, 300, SEEDS_A_TEST))
def test_every_job_ends_once_whatever_happens(first_seed: int) -> None:
    """Each accepted job is in one place at any time, counted right, and ends in one way."""
    for seed in range(first_seed, first_seed + SEEDS_A_TEST):
        random = Random(seed)
        ledger = Ledger(random.randint(1, 4))
        mean_run = random.choice([1e-6, 4e-5, 1e-3, 0.1])
        violence = random.choice([0.0, 0.01, 0.05])
        for at in range(STEPS):
            step(ledger, random, mean_run, violence)
            if at % 4 == 0:
                ledger.check()
        drain(ledger, random, mean_run)

        ledger.check()
        assert ledger.counts == (0, 0), seed
        for job in ledger.ended:
            ledger.check_end(job)
        if not violence:
            assert {job.status for job in ledger.ended} <= {Status.OK}, seed
            assert set(ledger.ran) == set(ledger.posted), seed


@pytest.mark.parametrize("first_seed", range(1000, 1100, SEEDS_A_TEST))
def test_one_worker_is_first_come_first_served_through_deaths(first_seed: int) -> None:
    """What goes back to the queue goes back to its place."""
    for seed in range(first_seed, first_seed + SEEDS_A_TEST):
        random = Random(seed)
        ledger = Ledger(1)
        mean_run = random.choice([1e-6, 4e-5, 1e-3, 0.1])
        for _ in range(STEPS):
            step(ledger, random, mean_run, 0.03)
        drain(ledger, random, mean_run)

        order = {job: at for at, job in enumerate(ledger.posted)}
        ran = [order[job] for job in ledger.ran]
        assert ran == sorted(ran), seed


@pytest.mark.parametrize("first_seed", range(2000, 2100, SEEDS_A_TEST))
def test_a_stuck_worker_holds_up_its_own_task_only(first_seed: int) -> None:
    """All others end elsewhere, and what it had finished before is fetched from its page."""
    for seed in range(first_seed, first_seed + SEEDS_A_TEST):
        random = Random(seed)
        ledger = Ledger(random.randint(2, 4))
        mean_run = random.choice([1e-6, 4e-5, 1e-3, 0.1])
        for _ in range(STEPS):
            step(ledger, random, mean_run, 0.0)
        while not ledger.workers[0].running:
            ledger.post()
            ledger.pass_time(1e-4)
            advance(ledger, random, 0, mean_run)
        drain(ledger, random, mean_run, stuck=0)

        running = ledger.workers[0].running
        assert running is not None
        assert set(ledger.posted) - set(ledger.ended) == {running[1]}, seed
