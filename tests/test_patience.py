"""Whether to stay awake for what may come in a moment."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from model_engine import ModelEngine
from workers import open_workers

from trioserver._tasks._arena import WorkerArena
from trioserver._tasks._calls import _AT_ONCE, run_jobs
from trioserver._tasks._link import Link
from trioserver._tasks._patience import AWAKE, MAX_PASSED, Patience, cores_here
from trioserver._tasks._recorder import Recorder, create_page
from trioserver._tasks._run_times import LONG
from trioserver._tasks._wire import ORDER, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from trioserver._tasks._job import Caller, Job


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def wait_in_vain(patience: Patience, time: Time) -> None:
    assert patience.begins()
    assert patience.goes_on()
    time.now += AWAKE
    assert not patience.goes_on()


def waits_asleep(patience: Patience) -> int:
    """How many waits pass before the next attempt, which begins here."""
    count = 0
    while not patience.begins():
        count += 1
    return count


def test_it_lasts_for_as_long_as_sleep_costs() -> None:
    """Looks go on until the time is over."""
    time = Time()
    patience = Patience(time, cores=2)

    assert patience.begins()
    time.now += AWAKE * 0.9
    assert patience.goes_on()
    time.now += AWAKE * 0.2
    assert not patience.goes_on()


def test_what_is_in_vain_is_tried_less_and_less_often() -> None:
    """But never given up: the times may change."""
    time = Time()
    patience = Patience(time, cores=2)
    wait_in_vain(patience, time)

    passed = []
    for _ in range(9):
        passed.append(waits_asleep(patience))
        time.now += AWAKE
        assert not patience.goes_on()

    assert passed == [1, 3, 7, 15, 31, 63, MAX_PASSED, MAX_PASSED, MAX_PASSED]


def test_once_it_has_paid_it_is_tried_every_time() -> None:
    """Until it is in vain again."""
    time = Time()
    patience = Patience(time, cores=2)
    for _ in range(5):
        waits_asleep(patience)
        time.now += AWAKE
        assert not patience.goes_on()
    waits_asleep(patience)

    patience.has_paid()

    assert [waits_asleep(patience) for _ in range(10)] == [0] * 10
    time.now += AWAKE
    assert not patience.goes_on()
    assert waits_asleep(patience) == 1


def test_on_a_single_core_it_sleeps() -> None:
    """Whom it waits for could not run."""
    patience = Patience(cores=1)

    assert not any(patience.begins() for _ in range(3 * MAX_PASSED))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no processes")
def test_cores_are_those_that_it_may_run_on() -> None:
    """A process that is pinned to one has one, however many there are."""
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert cores_here() == 1
    finally:
        os.sched_setaffinity(0, cores)
    assert cores_here() == len(cores)


def test_who_was_busy_last_is_handed_the_next_one() -> None:
    """It may be awake still; fresh ones have their turn in the order of their numbers."""
    engine = ModelEngine(3)
    first, second = engine.post(2)
    assert (first.worker_id, second.worker_id) == (0, 1)

    engine.run(0, LONG)
    engine.run(1, LONG)

    assert [job.worker_id for job in engine.post(3)] == [1, 0, 2]


# In a task worker


class Looks(Patience):
    """Stays awake for so many looks, and counts; ``at`` is called before each."""

    __slots__ = ("at", "left", "paid")

    def __init__(self, left: int, at: Callable[[], None] = lambda: None) -> None:
        super().__init__(cores=2)
        self.left = left
        self.at = at
        self.paid = 0

    def goes_on(self) -> bool:
        self.left -= 1
        if self.left >= 0:
            self.at()
        return self.left >= 0

    def has_paid(self) -> None:
        self.paid += 1


@pytest.fixture
def link() -> Iterator[tuple[Link, socket.socket]]:
    """A worker's link, and the dispatcher's end of its socket."""
    ours, theirs = socket.socketpair()
    page = create_page()
    recorder, arena = Recorder(page), WorkerArena(page)
    os.close(page)
    with ours, theirs:
        yield Link(theirs, recorder, arena, 1024), ours
    recorder.close()


def order(seq: int) -> bytes:
    return ORDER.pack(seq, seq, 1, Kind.TASK, 0)


def test_a_worker_that_is_awake_takes_what_comes(link: tuple[Link, socket.socket]) -> None:
    """At whichever look that is, and sleeps no more."""
    worker, dispatcher = link

    def come_at_last_look() -> None:
        if patience.left == 0:
            dispatcher.sendall(order(7))

    patience = worker._patience = Looks(3, come_at_last_look)

    worker.receive()

    assert [order[0] for order in worker.orders] == [7]
    assert patience.paid == 1


def test_a_worker_whose_patience_is_over_sleeps(link: tuple[Link, socket.socket]) -> None:
    """Half an order is none: it waits for the rest, and that was in vain."""
    worker, dispatcher = link
    dispatcher.sendall(order(1)[:5])

    class WakesUp(Looks):
        """The rest comes once it has given up."""

        __slots__ = ()

        def goes_on(self) -> bool:
            is_on = super().goes_on()
            if not is_on:
                dispatcher.sendall(order(1)[5:])
            return is_on

    patience = worker._patience = WakesUp(2)

    worker.receive()

    assert [order[0] for order in worker.orders] == [1]
    assert patience.paid == 0


def test_a_cancellation_that_comes_too_late_is_skipped(
    link: tuple[Link, socket.socket],
) -> None:
    """By a loop that runs one task after the other, and keeps none."""
    worker, dispatcher = link
    dispatcher.sendall(ORDER.pack(3, 0, 0, Kind.CANCEL, 0))

    worker.receive()

    assert [order[3] for order in worker.orders] == [Kind.CANCEL]
    assert not worker.cancellations


# In a caller


class Ended:
    """Posts jobs, and ends them when it is told."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.cancelled: list[Job] = []

    async def post_all(self, jobs: Iterable[Job], posted: list[Job]) -> None:
        posted += jobs
        self.jobs += posted
        await trio.lowlevel.checkpoint()

    def cancel(self, job: Job, _reason: str) -> None:
        self.cancelled.append(job)
        self.end(job)

    def end(self, job: Job) -> None:
        assert job.caller is not None
        job.caller.some_ended(1)


async def wait_for_one(world: Ended, patience: Patience) -> None:
    job = ModelEngine().job()

    def asked(caller: Caller) -> list[Job]:
        job.caller = caller
        return [job]

    completions = await run_jobs(asked, world.post_all, world.cancel, lambda _: patience)
    assert len(completions) == 1


async def test_a_caller_who_is_awake_lets_others_run() -> None:
    """Each look is a turn for everybody, so whoever ends its task can do so."""
    world = Ended()
    patience = Looks(50)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while turns < 10:
            turns += 1
            await trio.lowlevel.checkpoint()
        world.end(world.jobs[0])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await wait_for_one(world, patience)

    assert patience.paid == 1
    assert 0 < patience.left < 50


async def test_a_caller_whose_patience_is_over_sleeps() -> None:
    """And is woken as always."""
    world = Ended()
    patience = Looks(2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_one, world, patience)
        await trio.testing.wait_all_tasks_blocked()
        assert patience.left < 0
        world.end(world.jobs[0])

    assert patience.paid == 0


async def test_a_caller_who_is_awake_can_be_cancelled() -> None:
    """Its task is ended, as where it sleeps."""
    world = Ended()
    with trio.CancelScope() as scope:
        patience = Looks(50, scope.cancel)

        await wait_for_one(world, patience)

    assert scope.cancelled_caught
    assert world.cancelled == world.jobs != []
    assert patience.paid == 0


async def test_many_completions_are_made_in_turns() -> None:
    """Whoever has waited for very many holds up nobody when all have ended."""
    engine = ModelEngine()
    turns = 0

    def asked(caller: Caller) -> list[Job]:
        jobs = [engine.job() for _ in range(10 * _AT_ONCE)]
        for job in jobs:
            job.caller = caller
        caller.some_ended(len(jobs))
        return jobs

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    world = Ended()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        before = turns
        completions = await run_jobs(asked, world.post_all, world.cancel, lambda _: None)
        assert turns - before > 5
        nursery.cancel_scope.cancel()

    assert [completion._job for completion in completions] == world.jobs


async def test_only_processes_are_worth_staying_awake_for() -> None:
    """What runs in this process runs when everybody sleeps."""
    async with open_workers() as workers:
        assert workers.dispatcher.patience is not None
    engine = ModelEngine()
    assert engine.dispatcher.patience is None
