"""Workers that do not answer, or are held up by one of their tasks, as decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_engine import ModelEngine

from trioserver._tasks._policy import GRACE, Policy
from trioserver._tasks._run_times import AHEAD_BYTES
from trioserver._tasks._watching import HELD_UP, TAKE_UP
from trioserver._tasks._wire import Status

if TYPE_CHECKING:
    import pytest

COROUTINES = Policy(concurrency=4, grace=GRACE)


def test_a_stopped_worker_is_replaced_though_all_that_it_got_was_taken_back() -> None:
    """Cancelled or too late, one after the other: it still owes an answer for each."""
    engine = ModelEngine(2)
    engine.post_one(task_worker=0, queue_timeout=1.0)
    for _ in range(20):
        engine.pass_time(0.5)
        engine.dispatcher.cancel(engine.post_one(task_worker=0), "test")
        if engine.killed:
            break

    assert engine.killed == [0]
    assert engine.now <= 100 + 3 * TAKE_UP


def test_a_worker_that_owes_nothing_is_chosen_first() -> None:
    """One that has yet to skip something may be stopped."""
    engine = ModelEngine(2)
    engine.dispatcher.cancel(engine.post_one(task_worker=0), "test")
    engine.post_one()

    assert engine.given(1) != []


def test_an_alarm_does_not_ring_on_beside_a_stopped_worker() -> None:
    """It is asked for by times, and not by hope."""
    engine = ModelEngine()
    engine.post(5)
    rings = 0
    while engine.killed == []:
        assert engine.alarm is not None
        engine.pass_time(engine.alarm - engine.now)
        rings += 1

    assert rings < 40


def test_who_has_ended_and_cannot_say_so_is_given_up() -> None:
    """With or without a limit of time; it had ended in time, so that its worker has crashed."""
    engine = ModelEngine()
    job = engine.post_one(timeout=1.0)
    engine.begin(0)
    engine.finish(0, 0.5)
    engine.workers[0].unsent.clear()
    engine.pass_time(TAKE_UP)
    assert engine.killed == []
    engine.pass_time(4 * TAKE_UP)
    assert engine.killed == [0]
    engine.die(0)
    assert job.status == Status.CRASHED
    engine.replace(0)

    long = engine.post_one()
    engine.begin(0)
    engine.pass_time(1000)
    assert engine.killed == [0]
    engine.finish(0)
    engine.workers[0].unsent.clear()
    engine.pass_time(60 + 4 * TAKE_UP)
    assert engine.killed == [0, 0]
    engine.die(0)
    assert long.status == Status.CRASHED


def test_parts_of_a_report_are_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes in all."""
    engine = ModelEngine()
    engine.post_one(timeout=1.0)
    engine.begin(0)
    engine.finish(0, 0.5)
    engine.workers[0].unsent.clear()
    monkeypatch.setattr(engine, "heard_at", lambda _number: engine.now - 1.0)
    engine.pass_time(100)

    assert engine.killed == []


def test_a_cancel_that_comes_after_the_end_costs_no_worker() -> None:
    """The report is on its way, and says how it ended."""
    engine = ModelEngine()
    job = engine.post_one()
    engine.begin(0)
    engine.finish(0)
    engine.dispatcher.cancel(job, "test")
    assert engine.killed == []
    engine.send(0)

    assert job.status == Status.OK


def test_a_grace_that_is_over_harms_nobody_once_the_task_has_ended() -> None:
    """Its report may be in the socket while the server does something else."""
    engine = ModelEngine(1, COROUTINES)
    late, neighbour = engine.post_one(timeout=1.0), engine.post_one()
    engine.begin_concurrently(0)
    engine.begin_concurrently(0)
    engine.pass_time(1.0)
    assert engine.cancelled == [(0, late.seq)]
    engine.workers[0].end(late.seq)
    engine.pass_time(2 * GRACE)
    assert engine.killed == []
    engine.dispatcher.reported(0, [(late.seq, Status.CANCELLED, 100.0, 1.0, b"")])

    assert late.status == Status.TIMED_OUT
    assert neighbour.status is None


def test_what_a_blocked_loop_does_not_begin_runs_elsewhere() -> None:
    """A coroutine that blocks holds up those that run beside it, and no others."""
    engine = ModelEngine(2, COROUTINES)
    blocking = engine.post_one(task_worker=0)
    engine.begin_concurrently(0)
    jobs = engine.post(7)
    held = engine.given(0)[1:]
    assert held
    for _ in range(3):
        engine.begin_concurrently(1)
    engine.pass_time(2.5 * HELD_UP)

    assert engine.given(0) == [blocking]
    elsewhere = {*engine.given(1), *engine.workers[1].running.values()}
    assert elsewhere | {*engine.dispatcher._books.queue.line.jobs} >= {*jobs}
    assert engine.killed == []


def test_a_held_up_worker_is_tried_again() -> None:
    """It may be free by then; and a report of its own says so at once."""
    engine = ModelEngine(1, COROUTINES)
    blocking = engine.post_one()
    engine.begin_concurrently(0)
    other = engine.post_one()
    engine.pass_time(2.5 * HELD_UP)
    assert engine.given(0) == [blocking]
    engine.pass_time(2 * HELD_UP)
    assert engine.given(0) == [blocking, other]
    engine.pass_time(1.5 * HELD_UP)
    assert engine.given(0) == [blocking]
    engine.workers[0].running.clear()
    engine.workers[0].end(blocking.seq)
    engine.dispatcher.reported(0, [(blocking.seq, Status.OK, 100.0, 1.0, b"")])

    assert other in engine.given(0)


def test_bytes_bound_what_is_handed_ahead() -> None:
    """A worker reads what it has before it gets more, and one large job travels alone."""
    engine = ModelEngine()
    engine.learn(1e-6)
    small, large = AHEAD_BYTES // 10, 4 * AHEAD_BYTES
    for size in (small,) * 40 + (large,) * 3:
        job = engine.job()
        job.payload, job.size = bytes(size), size
        engine.dispatcher.accept(job)
    most = 0
    while engine.dispatcher.waiting + engine.dispatcher.running:
        held = [len(job.payload) for job in engine.given(0)]
        assert sum(held[:-1]) <= 2 * AHEAD_BYTES
        most = max(most, len(held))
        engine.run(0, 1e-6)

    assert most > 3


def test_what_several_dead_workers_give_back_is_in_order_again() -> None:
    """Whoever dies first."""
    engine = ModelEngine(3)
    jobs = []
    for _ in range(6):
        engine.now += 1e-3
        jobs.append(engine.post_one())
    for number in (0, 2, 1):
        engine.die(number)
    engine.replace(0)
    while any(job.status is None for job in jobs):
        engine.run(0)

    assert engine.ran == jobs


def test_a_replacement_that_comes_to_nothing_is_followed_by_another_look() -> None:
    """The worker begins in the very moment in which it would be given up; its limit counts."""
    engine = ModelEngine()
    job = engine.post_one(timeout=0.5)
    revoke = engine.revoke

    def begin_first(seat: int, seq: int) -> bool:
        engine.begin(0)
        engine.revoke = revoke  # type: ignore[method-assign]
        return revoke(seat, seq)

    engine.pass_time(2 * TAKE_UP - 0.1)
    engine.revoke = begin_first  # type: ignore[method-assign]
    engine.pass_time(0.3)
    assert engine.ran == [job]
    assert engine.killed == []
    engine.pass_time(TAKE_UP)

    assert engine.killed == [0]
    engine.die(0)
    assert job.status == Status.TIMED_OUT
