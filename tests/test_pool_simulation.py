"""A pool with everybody around it, in Trio's time, by seed: posts, ends, deaths, and the stop.

Trio's own choice of who runs next is drawn by the seed, too, and so is how often hot calls yield:
a failing seed is the whole report, and does the same again.
"""

from __future__ import annotations

import itertools
import logging
from contextlib import ExitStack, contextmanager
from random import Random
from typing import TYPE_CHECKING
from unittest import mock

import pytest
import trio
from pool_people import Boom, People
from pool_world import STOPPED, PoolShape, PoolWorld
from trio.testing import MockClock

from trioserver._pacing import Pacer
from trioserver._tasks._finishing import MAX_LOOPS
from trioserver._tasks._pool_life import open_pool
from trioserver._tasks._wire import Status

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


@contextmanager
def scheduled_by(seed: int) -> Iterator[None]:
    """Have Trio, and the pacing of hot calls, depend on nothing but ``seed``."""
    scheduler = trio._core._run
    state = scheduler._r.getstate()
    ticks = itertools.count(0, 0.0003)
    scheduler._r.seed(seed)
    try:
        with ExitStack() as patches:
            patches.enter_context(
                mock.patch.object(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
            )
            for module in ("_pacing", "_tasks._entrance", "_tasks._finishing"):
                name = f"trioserver.{module}.perf_counter"
                patches.enter_context(mock.patch(name, ticks.__next__))
            yield
    finally:
        scheduler._r.setstate(state)


def simulate(seed: int) -> PoolWorld:
    """One life of a pool; what must hold of its end is checked here."""
    random = Random(seed)
    world = PoolWorld(PoolShape.drawn(random), random)
    with scheduled_by(seed):
        trio.run(live, world, clock=MockClock(autojump_threshold=0))
    check_end(world)
    return world


async def live(world: PoolWorld) -> None:
    """Everything that happens."""
    people, shape, random = People(world), world.shape, world.random
    async with trio.open_nursery() as around:
        around.start_soon(world.alarm_clock.run, world.dispatcher.look_after)
        async with trio.open_nursery() as people_at_work:
            try:
                async with open_pool(
                    world.dispatcher,
                    people.on_finish,
                    people.on_progress,
                    shape.settings,
                    world.stopping,
                    Pacer(),
                ) as world.pool:
                    around.start_soon(world.work)
                    for _ in range(random.randint(1, 4)):
                        people_at_work.start_soon(people.post_some)
                    for _ in range(random.randint(0, 2)):
                        people_at_work.start_soon(people.call_some)
                    for stream in world.streams[: random.randint(0, 3)]:
                        people_at_work.start_soon(people.disconnect, stream)
                    people_at_work.start_soon(people.cancel_some)
                    await trio.sleep(shape.stop_at)
                    if shape.is_hard:
                        raise Boom  # noqa: TRY301  # the body of a pool raises
                    world.stopping.request()
            except* Boom:
                pass
            world.trace.append(("stopped", trio.current_time()))
        # Whoever was killed must still be seen to die.
        with trio.fail_after(10):
            await world.pool.wait_ended()
        around.cancel_scope.cancel()


def check_end(world: PoolWorld) -> None:
    """Everybody has heard what there was to hear, exactly once, and nothing is left."""
    world.check()
    pool = world.pool
    jobs = world.jobs
    assert not world.alive
    assert not pool._jobs
    assert pool._entrance._bytes == 0
    assert world.counts == (0, 0)
    assert not pool._entrance._for_others.line
    assert not pool._entrance._for_on_finish.line
    assert not world.refused & set(jobs)

    by_caller = {number for number, job in jobs.items() if job.caller is not None}
    by_on_finish = set(jobs) - by_caller
    assert {number for number, how in world.heard.items() if how == "caller"} == by_caller
    heard = {number for number, how in world.heard.items() if how == "on_finish"}
    assert heard <= by_on_finish

    missed = len(by_on_finish) - world.delivered
    assert missed >= len(by_on_finish - heard)
    progress = len(pool._progress)
    if world.shape.is_hard:
        # Nothing is delivered that had not been by then, so a cut task counts once; what returns in
        # the very moment of its cancellation counts as cut, too.
        stopped = [job for job in world.stopped_jobs if job.caller is not None]
        certain = missed + len(stopped) + progress
        assert certain <= world.stopping.cut <= certain + MAX_LOOPS
    else:
        assert world.stopping.cut == missed + len(world.stopped_jobs) + progress
    for job in jobs.values():
        if job.status == Status.CANCELLED and job.body == STOPPED.encode():
            assert job in world.stopped_jobs
        assert job.attempt <= job.options.retries + 1
    if not missed:
        assert (pool._entrance.unheard, pool._entrance._unheard_bytes) == (0, 0)
        assert not pool._entrance._accounts._accounts
    if not world.stopping.cut:
        assert heard == by_on_finish


def test_every_task_is_heard_of_once(seeds: Seeds) -> None:
    """By its caller or on_finish, whoever dies, leaves, hangs or stops; what was cut is counted."""
    seeds.each(simulate)


def test_a_seed_does_the_same_again() -> None:
    """Else a failing one would be no report."""
    for seed in range(8):
        traces = [simulate(seed).trace for _ in range(2)]
        assert traces[0] == traces[1]
        assert len(traces[0]) > 2
