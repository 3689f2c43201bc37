"""What can happen in a world of a dispatcher: one step of it at a time, and its way to the end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dispatcher_world import ROUNDING

from trioserver._tasks._sync_loop import SEND_AT_ONCE_AFTER
from trioserver._tasks._wire import Status

if TYPE_CHECKING:
    from random import Random

    from dispatcher_world import World

_ROUNDS = 20_000
_QUIET = 100
_TIMES = [1e-5, 1e-3, 0.02, 0.3, 3.0]


def step(world: World, random: Random) -> None:
    """Let one thing happen somewhere."""
    shape = world.shape
    number = random.choice(world.seats)
    chance = random.random()
    if chance < 0.17:
        world.post(random.choice([1, 1, 2, 3, 12]), **drawn_options(world, random))
    elif chance < 0.20 and world.alive and shape.has_options:
        jobs = list(world.facts)
        running = list(world.workers[number].running.values())
        if running and random.random() < 0.5:
            world.call_off(running[0])
        else:
            world.call_off(jobs[random.randrange(max(0, len(jobs) - 40), len(jobs))])
    elif chance < 0.26:
        world.pass_time(random.choice(_TIMES) * random.uniform(0.5, 1))
    elif chance < 0.26 + shape.violence:
        harm(world, random, number)
    elif chance < 0.26 + shape.violence + shape.changes:
        change(world, random)
    else:
        advance(world, random, number)


def change(world: World, random: Random) -> None:
    """Let a fresh worker take a number, or let there be one more, or one fewer."""
    chance = random.random()
    if chance < 0.6:
        world.seat_fresh(random.randrange(len(world.current)))
    elif chance < 0.8:
        world.seat_fresh(len(world.current))
    elif len(world.current) > 1:
        world.dismiss()


def drawn_options(world: World, random: Random) -> dict[str, Any]:
    """Options of jobs, nearly all of them as most are."""
    if not world.shape.has_options or random.random() < 0.4:
        return {}
    options: dict[str, Any] = {}
    if random.random() < 0.4:
        options["timeout"] = random.choice([1e-3, 0.05, 0.5, 4.0]) * random.uniform(0.5, 1)
    if random.random() < 0.4:
        options["queue_timeout"] = random.choice([1e-3, 0.05, 0.5, 4.0]) * random.uniform(0.5, 1)
    if random.random() < 0.4:
        options["retries"] = random.randint(1, 3)
    if random.random() < 0.3:
        # Whoever waited in line may find the number gone that there was.
        too_many = 1 if world.shape.changes and random.random() < 0.2 else 0
        options["task_worker"] = random.randrange(len(world.current) + too_many)
    return options


def harm(world: World, random: Random, number: int) -> None:
    """Let something bad happen to a worker."""
    if number in world.away:
        return
    kind = random.random()
    if kind < 0.6:
        world.die(number, random.choice([None, 0, 3, -9]))
    elif kind < 0.7:
        world.workers[number].is_spoilt = world.has_spoilt = True
    else:
        world.stopped.add(number)


def advance(world: World, random: Random, number: int) -> bool:
    """Let a worker do the next thing that it can do; False if there is none."""
    worker = world.workers[number]
    if number in world.away:
        world.replace(number)
    elif worker.is_killed and random.random() < 0.7:
        world.die(number)
    elif number in world.stopped:
        if random.random() > 0.05:
            return False
        world.stopped.discard(number)
    elif worker.at_the_door:
        world.enter(number)
    else:
        return _advance_running(world, random, number)
    return True


def _advance_running(world: World, random: Random, number: int) -> bool:
    worker = world.workers[number]
    concurrency = world.shape.policy.concurrency
    if worker.unsent and (
        concurrency > 1 or not worker.orders or worker.unsent[-1][3] >= SEND_AT_ONCE_AFTER
    ):
        world.send(number)
    elif (
        worker.orders
        and len(worker.running) < concurrency
        and (not worker.running or random.random() < 0.6)
    ):
        world.write_begun(number)
    elif worker.running:
        _finish(world, random, number)
    elif worker.is_retired:
        world.die(number, random.choice([0, 0, 0, -9]))
    else:
        return False
    return True


def _finish(world: World, random: Random, number: int) -> None:
    """A job runs on for a while, and ends unless something happens meanwhile."""
    worker = world.workers[number]
    seq = random.choice(list(worker.running))
    job = worker.running[seq]
    if random.random() < 0.05:
        world.dispatcher.posted(number, seq, b"")
    world.pass_time(world.shape.mean_run * random.choice([0.5, 1.0, 1.5, 40.0]))
    if world.workers[number] is not worker or worker.running.get(seq) is not job:
        return
    if world.shape.policy.max_memory:
        world.memory_used[number] = random.choice([500, 900, 900, 1001])
    chance = random.random()
    if seq in worker.asked:
        if chance < 0.2:
            return  # it swallows its cancellation, for now
        status = random.choice([Status.CANCELLED, Status.CANCELLED, Status.OK, Status.FAILED])
    else:
        status = Status.FAILED if chance < 0.2 and world.shape.has_options else Status.OK
    world.finish_one(number, seq, status)


def drain(world: World, random: Random, stuck: int | None = None) -> None:
    """Let everybody go on until nothing is left to do, except for one that is ``stuck``."""
    quiet = 0
    for _ in range(_ROUNDS):
        has_moved = False
        for number in world.seats:
            if number == stuck:
                continue
            worker = world.workers[number]
            # An engine kills one that is told to leave and does not.
            if worker.is_killed or (worker.is_retired and number in world.stopped):
                world.die(number)
                has_moved = True
                continue
            # What a stopped process has begun, or may have, nobody may end who was not asked to.
            if worker.running or worker.at_the_door or worker.unsent or worker.is_spoilt:
                world.stopped.discard(number)
            if advance(world, random, number):
                has_moved = True
                world.check()
        quiet = 0 if has_moved else quiet + 1
        if not has_moved:
            # What a stuck worker runs is looked at now and then, for ever.
            if world.alarm in (None, math.inf) or (stuck is not None and quiet > _QUIET):
                break
            world.pass_time(max(0.0, world.alarm - world.now) + ROUNDING)
            world.check()
    else:
        raise AssertionError("it never comes to rest")


def check_rest(world: World) -> None:
    """When everybody has done what it can: nothing is left, and nobody rings."""
    assert not world.alive, "jobs are left that nobody runs"
    assert world.counts == (0, 0)
    assert not world.leaving, "an old worker stays"
    for number, worker in enumerate(world.workers):
        if number in world.stopped:
            continue
        assert not any((worker.orders, worker.running, worker.unsent))
        most = world.policy.max_request
        assert not most or world.runs[number] < most or number in world.gone, (
            "a worn worker is left"
        )
    assert world.alarm in (None, math.inf)
    assert len(world.ended) == len(world.facts)
    assert set(world.ended) == set(world.facts)


def check_order(world: World) -> None:
    """On one worker, without second attempts, what was posted first begins first."""
    for pinned_to in (None, 0):
        ran = [
            world.facts[job].number
            for job in world.ran
            if job.options.task_worker == pinned_to and not job.options.retries
        ]
        assert ran == sorted(ran), "one has overtaken another"
