"""Which worker gets what, as decisions: pinned, recycled and concurrent ones."""

from __future__ import annotations

from random import Random

import pytest
from model_engine import ModelEngine

from trioserver._tasks._policy import GRACE, Policy
from trioserver._tasks._recorder import MAX_HANDED
from trioserver._tasks._wire import Status

# Pinned to a worker


def test_a_pinned_task_runs_there_and_nowhere_else() -> None:
    """It waits for its worker though another one is idle, also through a death."""
    engine = ModelEngine(2)
    engine.post_one(task_worker=0)
    engine.begin(0)
    waiting = engine.post_one(task_worker=0)
    engine.pass_time(1)
    assert engine.given(1) == []
    assert engine.counts == (1, 1)
    engine.die(0)
    engine.pass_time(1)
    assert engine.given(1) == []
    engine.replace(0)

    assert engine.run(0) is waiting
    assert waiting.status == Status.OK


def test_pinned_tasks_are_handed_ahead_and_stay() -> None:
    """Nobody takes them back for an idle worker that may not run them."""
    engine = ModelEngine(2)
    pinned = engine.post(3, task_worker=0)
    engine.begin(0)
    engine.post_one()
    engine.run(1)
    assert engine.given(0) == pinned
    messages = len(engine.messages)
    engine.pass_time(1)

    assert len(engine.messages) == messages
    engine.end(0)
    engine.run_out()
    assert [job for job in engine.ran if job in pinned] == pinned


@pytest.mark.parametrize("ran", [1e-5, 0.01])
def test_one_worker_is_first_come_first_served_for_pinned_ones_too(ran: float) -> None:
    """Whatever the run times."""
    engine = ModelEngine()
    engine.learn(ran)
    jobs = []
    for number in range(30):
        engine.now += 1e-6
        jobs += engine.post(1, task_worker=0 if number % 3 else None)
    while any(job.status is None for job in jobs):
        engine.run(0, ran)

    assert engine.ran == jobs


# Recycled


def test_a_worker_leaves_after_so_many_tasks() -> None:
    """Never more, up to a quarter fewer, and nothing that was handed to it is lost."""
    engine = ModelEngine(1, Policy(max_request=20), Random(1))
    lives = []
    for _ in range(10):
        before = len(engine.ended)
        engine.post(30)
        while engine.retired == []:
            engine.run(0, 1e-5)
        engine.retired.clear()
        lives.append(len(engine.ended) - before)
        engine.die(0, 0)
        engine.replace(0)

    assert set(lives) <= set(range(15, 21))
    assert len(set(lives)) > 1


def test_a_worker_that_has_grown_leaves_between_two_tasks() -> None:
    """What was ahead of it goes elsewhere."""
    engine = ModelEngine(2, Policy(max_memory=1000))
    first, second, third = engine.post(3)
    engine.begin(0)
    engine.begin(1)
    engine.memory_used = {0: 2000, 1: 500}
    engine.pass_time(0.01)
    assert engine.retired == []
    engine.end(0)

    assert engine.retired == [0]
    assert engine.dispatcher.statistics().workers[0].state == "leaving"
    engine.end(1)
    engine.run_out()
    assert engine.ran == [first, second, third]
    engine.die(0, 0)
    engine.replace(0)
    assert engine.dispatcher.statistics().workers[0].state == "idle"


def test_a_worn_worker_leaves_also_when_its_last_task_is_cancelled() -> None:
    """Nothing else would ever tell it."""
    engine = ModelEngine(1, Policy(concurrency=2, grace=GRACE, max_memory=1000))
    first, second = engine.post(2)
    engine.begin_concurrently(0)
    engine.memory_used = {0: 2000}
    engine.dispatcher.reported(0, [(first.seq, Status.OK, engine.now, 0.0, b"")])
    assert engine.retired == [0] or second.seq < 0 or second.worker_id == 0
    engine.dispatcher.cancel(second, "test")

    assert engine.retired == [0]


# Concurrent


def test_concurrent_workers_share_evenly_and_begin_at_once() -> None:
    """Up to the concurrency of each nothing waits; beyond it one task lies ahead."""
    engine = ModelEngine(2, Policy(concurrency=4, grace=GRACE))
    for expected in range(1, 9):
        engine.post_one()
        counts = sorted(len(worker.orders) for worker in engine.workers)
        assert sum(counts) == expected
        assert counts[1] - counts[0] <= 1
    assert engine.counts == (0, 8)
    engine.post(4)

    assert engine.counts == (4, 8)
    assert [len(worker.orders) for worker in engine.workers] == [5, 5]


def test_places_of_long_tasks_are_not_used_twice() -> None:
    """Many short ones may run beside a long one, as many as like."""
    engine = ModelEngine(1, Policy(concurrency=2, grace=GRACE))
    long = engine.post_one()
    engine.begin_concurrently(0)
    for _ in range(3 * MAX_HANDED):
        short = engine.post_one()
        engine.begin_concurrently(0)
        assert short.seq % MAX_HANDED != long.seq % MAX_HANDED
        engine.dispatcher.reported(0, [(short.seq, Status.OK, engine.now, 0.0, b"")])

    assert long.status is None
    assert len(engine.ended) == 3 * MAX_HANDED


def test_a_death_takes_what_had_begun_and_nothing_else() -> None:
    """The others go on elsewhere."""
    engine = ModelEngine(1, Policy(concurrency=3, grace=GRACE))
    begun = engine.post(2)
    engine.begin_concurrently(0)
    engine.begin_concurrently(0)
    rest = engine.post(2)
    engine.die(0)
    assert engine.ended == begun
    engine.replace(0)

    assert engine.given(0) == rest


# No window


def test_a_window_of_one_hands_nothing_ahead() -> None:
    """Short or long, each task waits for a worker that has nothing to do."""
    engine = ModelEngine(2, Policy(max_window=0))
    engine.learn(1e-6)
    jobs = engine.post(50)
    while any(job.status is None for job in jobs):
        assert max(len(worker.orders) for worker in engine.workers) <= 1
        for number, worker in enumerate(engine.workers):
            if worker.orders:
                engine.run(number)

    assert engine.ran == jobs
