"""The dispatcher's decisions when a job is cancelled: taken back, or killed for."""

from __future__ import annotations

from model_engine import ModelEngine

from trioserver._tasks._run_times import WINDOW
from trioserver._tasks._wire import Status

LONG_RUN = 0.01
SHORT_RUN = 0.00002


def statuses(engine: ModelEngine) -> list[int | None]:
    return [job.status for job in engine.ended]


def test_a_queued_job_is_cancelled_at_once() -> None:
    """It ends with the reason, never ran, and no worker hears of it."""
    engine = ModelEngine()
    jobs = engine.post(4)
    engine.pass_time(1.5)

    engine.dispatcher.cancel(jobs[3], "no one wants it")

    assert engine.ended == [jobs[3]]
    assert (jobs[3].status, jobs[3].body) == (Status.CANCELLED, b"no one wants it")
    assert (jobs[3].worker_id, jobs[3].begun_at, jobs[3].ran) == (None, 101.5, 0.0)
    assert engine.counts == (2, 1)
    assert engine.killed == []


def test_a_job_handed_ahead_is_taken_back_and_cancelled_at_once() -> None:
    """Though its worker be stuck; the next one takes its place behind the running one."""
    engine = ModelEngine()
    first, second, third = engine.post(3)
    engine.begin(0)

    engine.dispatcher.cancel(second, "test")

    assert engine.ended == [second]
    assert second.worker_id is None
    assert engine.given(0) == [first, third]
    assert engine.counts == (1, 1)
    engine.end(0)
    assert engine.run(0) is None  # the second order, which was revoked
    assert engine.run(0) is third
    assert engine.ended == [second, first, third]


def test_a_running_job_is_cancelled_by_killing_its_worker() -> None:
    """It ends when the worker is dead, and what was handed behind it runs elsewhere."""
    engine = ModelEngine(2)
    first, other, behind = engine.post(3)
    engine.begin(0)
    engine.begin(1)
    assert engine.given(0) == [first, behind]

    engine.dispatcher.cancel(first, "test")
    assert engine.killed == [0]
    assert engine.ended == []
    assert engine.given(0) == [first]
    assert engine.given(1) == [other, behind]

    engine.pass_time(0.25)
    engine.die(0)
    assert (first.status, first.body, first.worker_id) == (Status.CANCELLED, b"test", 0)
    assert (first.begun_at, first.ran) == (100.0, 0.25)
    assert engine.counts == (1, 1)


def test_a_job_that_ends_before_the_kill_keeps_its_result() -> None:
    """Its report may be on the way, or on the page of the dead worker."""
    for is_sent in (True, False):
        engine = ModelEngine()
        job = engine.post_one()
        engine.begin(0)
        engine.dispatcher.cancel(job, "test")
        engine.finish(0)
        if is_sent:
            engine.send(0)
            assert engine.ended == [job]
            assert engine.counts == (0, 0)
        later = engine.post_one()
        assert engine.counts == (1, 0 if is_sent else 1)
        engine.die(0)

        assert engine.ended == [job]
        assert job.status == Status.OK
        engine.replace(0)
        assert engine.run(0) is later


def test_a_job_that_has_ended_unheard_is_not_killed_for() -> None:
    """The next one has begun, which proves that this one has ended: nobody is killed."""
    engine = ModelEngine()
    first, second = engine.post(2)
    engine.begin(0)
    engine.finish(0)
    engine.begin(0)

    engine.dispatcher.cancel(first, "test")
    assert engine.killed == []
    assert engine.ended == []

    engine.send(0)
    assert first.status == Status.OK
    assert engine.ended == [first]
    engine.end(0)
    assert engine.ended == [first, second]


def test_a_report_that_is_kept_back_is_fetched_for_its_cancelled_job() -> None:
    """It does not wait for the end of the long task behind which it is kept."""
    engine = ModelEngine()
    first, _ = engine.post(2)
    engine.begin(0)
    engine.finish(0)
    engine.begin(0)
    engine.dispatcher.cancel(first, "test")

    engine.pass_time(2 * WINDOW)

    assert engine.ended == [first]
    assert first.status == Status.OK


def test_cancelling_twice_or_too_late_does_nothing() -> None:
    """The first reason counts, one worker is killed once, and what has ended has ended."""
    engine = ModelEngine()
    job = engine.post_one()
    engine.begin(0)
    engine.dispatcher.cancel(job, "first")
    engine.dispatcher.cancel(job, "second")
    assert engine.killed == [0]
    engine.die(0)

    engine.dispatcher.cancel(job, "third")

    assert engine.ended == [job]
    assert job.body == b"first"


def test_an_order_skipped_after_its_cancellation_ends_as_cancelled() -> None:
    """Both marks were written before either was read: it never ran, and its worker says so."""
    engine = ModelEngine()
    job = engine.post_one()
    engine.write_begun(0)
    engine.dispatcher.cancel(job, "test")
    assert engine.ended == []

    assert engine.enter(0) is False
    engine.send(0)

    assert engine.ended == [job]
    assert (job.status, job.worker_id, job.ran) == (Status.CANCELLED, None, 0.0)


def test_cancelled_jobs_do_not_fill_the_queue() -> None:
    """Memory of the queue follows what waits, not what was ever cancelled."""
    engine = ModelEngine()
    engine.post(2)
    for _ in range(1000):
        engine.dispatcher.cancel(engine.post_one(), "test")

    assert engine.counts == (1, 1)
    assert len(engine.ended) == 1000
    assert len(engine.dispatcher._books.queue.line.jobs) < 100


def test_all_can_be_cancelled_in_any_order() -> None:
    """Queued, handed ahead and running, and nothing is left over."""
    for forward in (True, False):
        engine = ModelEngine(2)
        jobs = engine.post(20)
        engine.begin(0)
        engine.begin(1)
        for job in jobs if forward else reversed(jobs):
            engine.dispatcher.cancel(job, "test")
        engine.die(0)
        engine.die(1)

        assert set(statuses(engine)) == {Status.CANCELLED}
        assert set(engine.ended) == set(jobs)
        assert len(engine.ended) == 20
        assert engine.counts == (0, 0)


def test_the_newest_first_lets_nothing_new_begin() -> None:
    """As a pool ends everything: what is behind a running job is gone before its worker is."""
    engine = ModelEngine(2)
    jobs = engine.post(20)
    begun = {engine.begin(0), engine.begin(1)}
    handed = len(engine.messages)
    for job in reversed(jobs):
        engine.dispatcher.cancel(job, "test")

    later = engine.messages[handed:]
    assert not {job for _, jobs in later for job in jobs} & begun
    assert all(job.status == Status.CANCELLED for _, jobs in later for job in jobs)
    assert sorted(engine.killed) == [0, 1]
