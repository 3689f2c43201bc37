"""Limits of time, as decisions: of a run, of the wait before it, and of taking work up at all."""

from __future__ import annotations

import pytest
from model_engine import ModelEngine

from trioserver._tasks._policy import GRACE, Policy
from trioserver._tasks._watching import HELD_UP, TAKE_UP
from trioserver._tasks._wire import Status, unpack_timeout


def test_a_run_that_takes_too_long_is_killed() -> None:
    """Counted from its begin; its end says how long it had."""
    engine = ModelEngine()
    job = engine.post_one(timeout=1.0)
    engine.pass_time(0.7)
    engine.begin(0)
    engine.pass_time(0.9)
    assert engine.killed == []
    engine.pass_time(0.2)

    assert engine.killed == [0]
    assert job.status is None
    engine.die(0)
    assert engine.ended == [job]
    assert job.status == Status.TIMED_OUT
    assert unpack_timeout(job.body) == (1.0, True)
    assert job.ran == pytest.approx(1.1)
    assert engine.alarm is None


def test_each_task_of_a_window_has_its_own_time() -> None:
    """What lies behind the one that is killed loses none of it, and runs elsewhere."""
    engine = ModelEngine()
    engine.learn(1e-4)
    first, second, third = engine.post(3, timeout=1.0)
    engine.begin_next(0)
    engine.pass_time(0.5)
    engine.end(0)
    engine.begin_next(0)
    engine.pass_time(0.9)
    assert engine.killed == []
    engine.pass_time(0.2)
    assert engine.killed == [0]
    engine.die(0)
    engine.replace(0)
    engine.begin_next(0)
    engine.pass_time(0.9)
    engine.end(0)

    assert [job.status for job in (first, second, third)] == [
        Status.OK,
        Status.TIMED_OUT,
        Status.OK,
    ]


def test_what_has_ended_in_time_is_not_late_though_nobody_has_heard() -> None:
    """The page has it, or says at least that it runs no more."""
    engine = ModelEngine()
    published = engine.post_one(timeout=1.0)
    engine.begin(0)
    engine.finish(0, 0.5)
    engine.pass_time(2.0)
    assert engine.ended == [published]

    engine.workers[0].unsent.clear()
    large = engine.post_one(timeout=1.0)
    engine.begin(0)
    engine.finish(0, 0.5)
    on_its_way = engine.workers[0].unsent
    engine.workers[0].unsent = []
    engine.pass_time(2.0)
    assert engine.killed == []
    engine.dispatcher.reported(0, on_its_way)
    assert large.status == Status.OK


def test_a_wait_that_takes_too_long_ends_unrun() -> None:
    """In the queue or ahead of a running task; a task that has begun in time runs on."""
    engine = ModelEngine()
    running, ahead, queued = engine.post(3, queue_timeout=1.0)
    patient = engine.post_one()
    engine.begin(0)
    engine.pass_time(1.5)

    assert engine.ended == [ahead, queued]
    assert {job.status for job in engine.ended} == {Status.TIMED_OUT}
    assert unpack_timeout(queued.body) == (1.0, False)
    assert queued.worker_id is None
    assert engine.killed == []
    engine.end(0)
    engine.run_out()
    assert running.status == patient.status == Status.OK


def test_a_worker_that_takes_nothing_up_is_replaced() -> None:
    """What it was handed runs elsewhere long before that, and no attempt was used."""
    engine = ModelEngine(2)
    stuck, other = engine.post(2)
    engine.run(1)
    for _ in range(2):
        assert engine.given(1) == []
        engine.pass_time(HELD_UP)
    assert engine.run(1) is stuck
    assert (stuck.status, stuck.attempt) == (Status.OK, 1)
    assert other.status == Status.OK
    engine.pass_time(TAKE_UP)
    assert engine.killed == []
    engine.pass_time(TAKE_UP)

    assert engine.killed == [0]


def test_what_a_sleeping_worker_has_waits_while_nobody_is_free() -> None:
    """Nobody could run it sooner; as soon as somebody is, it goes there."""
    engine = ModelEngine(2)
    waits, runs = engine.post(2)
    engine.begin(1)
    engine.pass_time(10 * HELD_UP)
    assert engine.given(0) == [waits]

    engine.end(1)
    engine.pass_time(10 * HELD_UP)
    engine.pass_time(10 * HELD_UP)

    assert runs.status == Status.OK
    assert engine.given(0) == []
    assert engine.run(1) is waits


def test_what_a_pinned_job_waits_for_is_its_worker() -> None:
    """However long that sleeps."""
    engine = ModelEngine(2)
    pinned = engine.post_one(task_worker=0)
    engine.pass_time(HELD_UP)
    engine.pass_time(HELD_UP)

    assert engine.given(0) == [pinned]
    assert engine.run(0) is pinned


def test_a_worker_that_runs_a_long_task_is_not_stuck() -> None:
    """However long that takes, with work behind it or not."""
    engine = ModelEngine()
    engine.post(3)
    engine.begin(0)
    engine.pass_time(100 * TAKE_UP)

    assert engine.killed == []


def test_a_coroutine_is_cancelled_first_and_its_worker_killed_after_a_grace() -> None:
    """Only if that did not help; neighbours lose their worker."""
    engine = ModelEngine(1, Policy(concurrency=3, grace=GRACE))
    late, neighbour = engine.post_one(timeout=1.0), engine.post_one()
    engine.begin_concurrently(0)
    engine.begin_concurrently(0)
    engine.pass_time(1.0)
    assert engine.cancelled == [(0, late.seq)]
    engine.pass_time(GRACE / 2)
    assert engine.killed == []
    engine.pass_time(GRACE)
    assert engine.killed == [0]
    engine.die(0)

    assert late.status == Status.TIMED_OUT
    assert neighbour.status == Status.CRASHED


def test_a_coroutine_that_ends_by_its_cancellation_has_timed_out() -> None:
    """Nobody else loses anything."""
    engine = ModelEngine(1, Policy(concurrency=3, grace=GRACE))
    late, neighbour = engine.post_one(timeout=1.0), engine.post_one()
    engine.begin_concurrently(0)
    engine.begin_concurrently(0)
    engine.pass_time(1.0)
    engine.dispatcher.reported(0, [(late.seq, Status.CANCELLED, engine.now - 1.0, 1.0, b"")])
    engine.pass_time(10 * GRACE)

    assert late.status == Status.TIMED_OUT
    assert neighbour.status is None
    assert engine.killed == []
