"""Which job goes where, and what becomes of it: decisions as plain calls on a model engine."""

from __future__ import annotations

from model_engine import RESULT, ModelEngine

from trioserver._tasks._recorder import MAX_HANDED
from trioserver._tasks._run_times import WINDOW
from trioserver._tasks._wire import Status

LONG_RUN = 0.01
SHORT_RUN = 0.00002


def statuses(engine: ModelEngine) -> list[int | None]:
    return [job.status for job in engine.ended]


def test_an_idle_worker_is_handed_a_job_at_once() -> None:
    """The longest idle first, and each worker before any gets a second."""
    engine = ModelEngine(3)

    jobs = engine.post(3)

    assert [engine.given(number) for number in range(3)] == [[job] for job in jobs]
    assert engine.counts == (0, 3)


def test_jobs_run_in_the_order_in_which_they_were_posted() -> None:
    """One worker runs all of them, first come first served."""
    engine = ModelEngine()

    jobs = engine.post(20)
    while engine.given(0):
        engine.run(0, LONG_RUN)

    assert engine.ran == engine.ended == jobs
    assert engine.counts == (0, 0)


def test_one_long_job_is_handed_ahead() -> None:
    """A worker has the next one there when it is done, and not more than that."""
    engine = ModelEngine(2)
    engine.learn(LONG_RUN)

    engine.post(10)

    assert [len(engine.given(number)) for number in range(2)] == [2, 2]
    assert engine.counts == (8, 2)
    engine.run(0, LONG_RUN)
    assert len(engine.given(0)) == 2


def test_nothing_is_handed_ahead_without_a_backlog() -> None:
    """While anyone is idle, a long job goes to him."""
    engine = ModelEngine(3)
    engine.learn(LONG_RUN)

    engine.post(3)

    assert [len(engine.given(number)) for number in range(3)] == [1, 1, 1]


def test_a_result_frees_the_worker_for_the_next_job() -> None:
    """What it ran is ended with its times and its worker, and the next one goes there."""
    engine = ModelEngine()
    first = engine.post_one()
    engine.pass_time(0.5)
    engine.run(0, 0.25)

    second = engine.post_one()

    assert (first.status, first.body, first.worker_id) == (Status.OK, RESULT, 0)
    assert (first.begun_at, first.ran) == (100.5, 0.25)
    assert engine.given(0) == [second]


def test_a_worker_that_is_not_ready_gets_nothing() -> None:
    """Jobs wait until one is."""
    engine = ModelEngine()
    engine.die(0)

    job = engine.post_one()
    assert engine.counts == (1, 0)

    engine.replace(0)
    assert engine.given(0) == [job]
    assert engine.counts == (0, 1)


def test_whoever_waits_for_room_is_told() -> None:
    """Whenever a job may have left the queue, for whatever reason."""
    engine = ModelEngine()
    told: list[int] = []
    engine.dispatcher.on_room(lambda: told.append(engine.dispatcher.waiting))
    jobs = engine.post(3)
    assert engine.counts == (2, 1)

    engine.dispatcher.cancel(jobs[2], "test")
    assert told[-1] == 1
    engine.run(0)
    assert told[-1] == 0


def test_a_report_heard_twice_counts_once() -> None:
    """From the page and from the socket."""
    engine = ModelEngine()
    first, second = engine.post(2)
    engine.begin(0)
    engine.finish(0)
    engine.begin(0)
    engine.pass_time(3 * WINDOW)  # the alarm has fetched it from the page
    assert engine.ended == [first]

    engine.send(0)
    assert engine.ended == [first]
    engine.end(0)
    assert engine.ended == [first, second]
    assert engine.counts == (0, 0)


def test_a_skipped_order_that_nobody_cancelled_runs_again() -> None:
    """It was wanted elsewhere, both marks were written before either was read."""
    engine = ModelEngine(2)
    engine.learn(LONG_RUN)
    engine.post(3)
    engine.begin(0)
    assert len(engine.given(0)) == 2
    behind = engine.given(0)[1]
    engine.finish(0, LONG_RUN)
    engine.write_begun(0)
    engine.begin(1)
    engine.end(1, LONG_RUN)  # worker 1 is idle, and the dispatcher reaches for the other's second
    assert engine.given(1) == []

    assert engine.enter(0) is False
    engine.send(0)

    assert [*engine.given(0), *engine.given(1)] == [behind]
    assert behind.status is None
    assert engine.counts == (0, 1)


def test_no_more_is_handed_than_a_flight_recorder_tells_apart() -> None:
    """Marks of revoked orders that a stopped worker has not met must not be written over."""
    engine = ModelEngine()
    for _ in range(2 * MAX_HANDED):
        engine.dispatcher.cancel(engine.post_one(), "test")
    assert len(engine.workers[0].orders) < MAX_HANDED

    job = engine.post_one()
    assert engine.counts == (1, 0)
    while engine.workers[0].orders:
        engine.run(0)  # it goes on, and skips

    assert engine.ran == [job]
    assert job.status == Status.OK
