"""Several pools at one dispatcher, by seed: posts, ends, deaths of both kinds of workers."""

from __future__ import annotations

import logging
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from branches import Branch, BranchPeople, CountingWorker, ManagerWorld, Relay
from pool_world import PoolShape
from test_pool_simulation import scheduled_by
from through_manager import open_desk, open_event_worker
from trio.testing import MockClock

from trioserver._pacing import Pacer
from trioserver._stopping import Stopping
from trioserver._tasks._pool_life import open_pool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seeds import Seeds


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Errors of ``on_finish`` are meant, and there are thousands."""
    logger = logging.getLogger("trioserver.tasks")
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(logging.NOTSET)


def simulate(seed: int) -> ManagerWorld:
    """One life of a server; what must hold of its end is checked here."""
    random = Random(seed)
    shape = attrs.evolve(PoolShape.drawn(random), hangs=0.0, is_hard=False)
    world = ManagerWorld(shape, random)
    with scheduled_by(seed):
        trio.run(live, world, clock=MockClock(autojump_threshold=0))
    check_end(world)
    return world


async def live(world: ManagerWorld) -> None:
    """Everything that happens."""
    random = world.random
    async with (
        open_desk(world.dispatcher, world.shape.settings) as world.desk,
        trio.open_nursery() as around,
    ):
        around.start_soon(world.alarm_clock.run, world.dispatcher.look_after)
        around.start_soon(world.work)
        count = random.randint(1, 3)
        dying = random.choice([None, *range(count)])
        async with trio.open_nursery() as branches:
            for seat in range(count):
                branch = Branch(world)
                world.branches.append(branch)
                branches.start_soon(partial(live_in, branch, seat, dies=seat == dying))
        # What nobody hears of any more runs on, and ends.
        with trio.fail_after(100):
            while world.counts != (0, 0):  # noqa: ASYNC110  # in the model's time
                await trio.sleep(0.1)
        world.check()
        around.cancel_scope.cancel()


async def live_in(branch: Branch, seat: int, *, dies: bool) -> None:
    """One event worker, until it leaves or dies."""
    world, random = branch.world, branch.random
    dies_at = random.uniform(0, 2 * world.shape.stop_at)
    stopping = Stopping(100.0)
    people = BranchPeople(branch)  # type: ignore[arg-type]  # all that it knows of a world
    people.branch = branch
    with trio.CancelScope() as life:
        async with open_event_worker(
            world.desk, seat, Relay(random), worker_type=CountingWorker
        ) as worker:
            worker.dispatcher.branch = branch  # type: ignore[attr-defined]  # of its kind
            branch.guest = worker.guest
            world.guests.append(worker.guest)

            async def die() -> None:
                await trio.sleep(dies_at)
                branch.die(worker.dispatcher._ends)
                worker.die()
                life.cancel()

            async with trio.open_nursery() as at_work:
                if dies:
                    at_work.start_soon(die)
                async with open_pool(
                    worker.dispatcher,
                    people.on_finish,
                    people.on_progress,
                    world.shape.settings,
                    stopping,
                    Pacer(),
                ) as branch.pool:
                    at_work.start_soon(branch.watch)
                    async with trio.open_nursery() as posting:
                        for _ in range(random.randint(1, 4)):
                            posting.start_soon(people.post_some)
                        for _ in range(random.randint(0, 2)):
                            posting.start_soon(people.call_some)
                        for stream in branch.streams[: random.randint(0, 2)]:
                            posting.start_soon(people.disconnect, stream)
                        posting.start_soon(people.cancel_some)
                        await trio.sleep(world.shape.stop_at)
                    stopping.request()
                assert stopping.cut == 0
                at_work.cancel_scope.cancel()


def check_end(world: ManagerWorld) -> None:
    """Who lives has heard of everything once; what a dead one had posted is counted."""
    abandoned = 0
    for branch in world.branches:
        assert not branch.guest.jobs
        if branch.is_dead:
            abandoned += len(branch.tasks) + len(branch.unarrived) - branch.heard_before
            continue
        assert set(branch.jobs) == set(branch.heard)
        for number, job in branch.jobs.items():
            truth = world.jobs[number]
            assert (job.status, job.body, job.attempt) == (truth.status, truth.body, truth.attempt)
            assert (job.ran, job.worker_id) == (truth.ran, truth.worker_id)
            expected = "on_finish" if job.caller is None else "caller"
            assert branch.heard[number] == expected
        assert not branch.pool._jobs
        assert branch.pool._entrance._bytes == branch.pool._entrance.unheard == 0
        assert not branch.refused & set(world.jobs)
    told = world.dispatcher.statistics()
    assert told.abandoned == abandoned
    assert world.desk.held_bytes == 0


def test_every_task_is_heard_of_once_where_it_was_posted(seeds: Seeds) -> None:
    """Whichever process dies: nobody else loses or doubles anything, or waits in vain."""
    seeds.each(simulate)


def test_a_seed_does_the_same_again() -> None:
    """Else a failing one would be no report."""
    for seed in range(8):
        traces = [simulate(seed).trace for _ in range(2)]
        assert traces[0] == traces[1]
        assert len(traces[0]) > 2
