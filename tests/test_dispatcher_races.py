"""What the dispatcher does in moments that need bad luck; the simulations found them."""

from __future__ import annotations

from unittest import mock

import trio
from model_engine import ModelEngine
from trio.testing import MockClock

from trioserver._tasks import _books
from trioserver._tasks._policy import Policy
from trioserver._tasks._run_times import WINDOW
from trioserver._tasks._wire import Status, unpack_timeout
from trioserver._tasks._workers import _Alarm


def test_a_limit_of_run_time_holds_for_a_job_that_begins_late() -> None:
    """A look that finds nothing begun is followed by one in the time that a job would have."""
    engine = ModelEngine()
    job = engine.post_one(timeout=0.3)
    engine.pass_time(0.31)
    engine.begin(0)
    engine.pass_time(0.31)

    assert engine.killed == [0]
    engine.die(0)
    assert job.status == Status.TIMED_OUT


def test_a_limit_in_the_queue_holds_for_a_job_that_only_seemed_to_begin() -> None:
    """Its worker has written that it begins, and then met that it was revoked."""
    engine = ModelEngine()
    job = engine.post_one(queue_timeout=1)
    engine.write_begun(0)
    engine.pass_time(1.5)
    assert job.status is None
    engine.enter(0)
    engine.send(0)

    assert job.status == Status.TIMED_OUT
    assert unpack_timeout(job.body) == (1, False)
    assert engine.counts == (0, 0)


def test_a_worn_worker_leaves_after_a_skipped_job_too() -> None:
    """Else it would be idle for ever."""
    engine = ModelEngine(policy=Policy(concurrency=2, grace=0.1, max_request=2))
    first, second = engine.post(2)
    engine.memory_used[0] = 0
    engine.dispatcher._books.workers[0].life = 1
    engine.begin(0)
    engine.write_begun(0)
    engine.end(0)
    assert engine.retired == []
    engine.enter(0)
    engine.send(0)

    assert (first.status, second.status) == (Status.OK, None)
    assert engine.retired == [0]


def test_a_report_that_comes_twice_gives_back_one_place() -> None:
    """By the second time the place on the page may be another job's."""
    with mock.patch.object(_books, "MAX_HANDED", 4):
        worker = _books.Worker(0, 0, 2)
        worker.ready = True
        assert list(worker.take_seqs(4)) == [1, 2, 3, 4]
        worker.done_with([1])
        assert list(worker.take_seqs(1)) == [5]
        worker.done_with([1])
        worker.done_with([2])

        assert list(worker.take_seqs(1)) == [6], "5 has the place of 1"
        assert worker.room(128) == 0


def test_nothing_is_handed_to_a_held_up_worker_to_be_taken_back_at_once() -> None:
    """With one free and another busy with quick jobs; the alarm would ring without end."""
    engine = ModelEngine(3, Policy(max_window=1))
    engine.learn(0.00001)
    engine.post()
    engine.pass_time(3 * WINDOW)
    engine.post()
    held_up, quick = (worker_id for worker_id, _ in engine.messages)
    assert held_up != quick
    engine.begin(quick)
    (job,) = engine.post()
    for _ in range(20):
        engine.dispatcher.look_after()

    assert [worker_id for worker_id, jobs in engine.messages if job in jobs] == [quick]


def test_the_alarm_rings_once_under_a_clock_that_stands_still() -> None:
    """Whatever the times: a deadline that is rounded down would ring before it is due."""
    rings: list[tuple[float, float]] = []

    async def ring_for(at: float) -> None:
        alarm = _Alarm(trio.current_time)
        alarm.set(at)
        with trio.move_on_after(at - trio.current_time() + 1):
            await alarm.run(lambda: rings.append((trio.current_time(), at)))

    async def main() -> None:
        for number in range(1, 50):
            await trio.sleep(1 / (3 * number))
            await ring_for(trio.current_time() + number / 7)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert len(rings) == 49
    assert all(now >= at for now, at in rings)
