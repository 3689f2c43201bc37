"""The dispatcher among workers that begin, end, report, race and die at every point, by seed.

A failing seed is the whole report: run it alone, and it does the same again.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING
from unittest import mock

from dispatcher_steps import advance, check_order, check_rest, drain, step
from dispatcher_world import Shape, World

from trioserver._tasks import _books
from trioserver._tasks._policy import Policy
from trioserver._tasks._wire import Status

if TYPE_CHECKING:
    from seeds import Seeds

STEPS = 40


def simulate(seed: int) -> World:
    """Anything happens, then everything comes to its end."""
    random = Random(seed)
    shape = Shape.drawn(random)
    world = World(shape, random)
    with mock.patch.object(_books, "MAX_HANDED", shape.places):
        for at in range(STEPS):
            step(world, random)
            world.check()
            if at % 4 == 0:
                world.check_statistics()
        drain(world, random)
        check_rest(world)
        world.check_statistics()
    return world


def test_every_job_ends_once_whatever_happens(seeds: Seeds) -> None:
    """Each accepted job is in one place at any time, counted right, and ends in one way."""

    def each(seed: int) -> None:
        world = simulate(seed)
        shape = world.shape
        if shape.workers == 1 and not world.has_spoilt and not shape.changes:
            check_order(world)
        if not shape.violence and not shape.has_options:
            assert {job.status for job in world.ended} <= {Status.OK}
            assert set(world.ran) == set(world.facts)

    seeds.each(each)


def test_a_stuck_worker_holds_up_its_own_task_only(seeds: Seeds) -> None:
    """All others end elsewhere, and what it had finished before is fetched from its page."""
    seeds.each(simulate_stuck)


def simulate_stuck(seed: int) -> None:
    """The first worker runs something, and never goes on."""
    random = Random(seed)
    shape = Shape.drawn(
        random,
        workers=random.randint(2, 4),
        policy=Policy(max_window=random.choice([1, 128])),
        violence=0.0,
        has_options=False,
        changes=0.0,
    )
    world = World(shape, random)
    with mock.patch.object(_books, "MAX_HANDED", shape.places):
        for _ in range(STEPS // 2):
            step(world, random)
        while not world.workers[0].running:
            world.post()
            world.pass_time(1e-4)
            advance(world, random, 0)
        drain(world, random, stuck=0)
        assert world.alive == set(world.workers[0].running.values())
        assert world.counts == (0, 1)
