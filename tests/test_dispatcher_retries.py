"""Further attempts, as decisions: after what, when, and how often."""

from __future__ import annotations

import pytest
from model_engine import ModelEngine

from trioserver._tasks._wire import Status


def fail(engine: ModelEngine) -> None:
    engine.begin(0)
    engine.finish(0, status=Status.FAILED, body=b"")
    engine.send(0)


def delay(engine: ModelEngine) -> float:
    """Seconds until the worker is handed something."""
    began = engine.now
    while not engine.workers[0].orders:
        assert engine.alarm is not None
        engine.pass_time(engine.alarm - engine.now)
    return engine.now - began


def test_attempts_come_later_and_later() -> None:
    """0.1 s, doubled each time up to 30 s, and up to a quarter more."""
    engine = ModelEngine()
    job = engine.post_one(retries=12)
    delays = []
    for attempt in range(1, 13):
        assert job.attempt == attempt
        fail(engine)
        assert engine.ended == []
        delays.append(delay(engine))

    for number, seconds in enumerate(delays):
        least = min(0.1 * 2**number, 30.0)
        assert least <= seconds <= 1.25 * least
    assert len({seconds / (0.1 * 2**number) for number, seconds in enumerate(delays[:8])}) == 8
    fail(engine)
    assert engine.ended == [job]
    assert (job.status, job.attempt) == (Status.FAILED, 13)
    assert engine.dispatcher.statistics().retried == 12


def test_very_many_attempts_overflow_nothing() -> None:
    """The delay stays what it is at the most."""
    engine = ModelEngine()
    job = engine.post_one(retries=5000)
    job.attempt = 4000
    fail(engine)

    assert 30.0 <= delay(engine) <= 37.5


@pytest.mark.parametrize("how", ["raises", "dies", "is late"])
def test_what_is_tried_again(how: str) -> None:
    """Exceptions, deaths of the worker, and timeouts; one end, of the last attempt."""
    engine = ModelEngine()
    job = engine.post_one(retries=1, timeout=1.0)
    if how == "raises":
        fail(engine)
    else:
        engine.begin(0)
        if how == "is late":
            engine.pass_time(1.1)
            assert engine.killed == [0]
        engine.die(0)
        engine.replace(0)
    assert engine.ended == []
    assert engine.counts == (1, 0)
    delay(engine)
    engine.run(0)

    assert engine.ended == [job]
    assert (job.status, job.attempt) == (Status.OK, 2)


def test_without_retries_nothing_runs_twice() -> None:
    """A task whose worker died has crashed."""
    engine = ModelEngine()
    job = engine.post_one()
    engine.begin(0)
    engine.die(0)
    engine.replace(0)
    engine.pass_time(100)

    assert engine.ran == [job]
    assert job.status == Status.CRASHED


def test_what_never_began_has_used_no_attempt() -> None:
    """It goes on elsewhere at once."""
    engine = ModelEngine()
    first, second = engine.post(2, retries=3)
    engine.begin(0)
    engine.die(0)
    engine.replace(0)

    assert engine.given(0) == [second]
    assert (first.attempt, second.attempt) == (2, 1)


@pytest.mark.parametrize("when", ["waits", "runs", "fails"])
def test_a_cancelled_task_is_never_tried_again(when: str) -> None:
    """Between two attempts it ends at once; one that fails while it is being ended has failed."""
    engine = ModelEngine()
    job = engine.post_one(retries=5)
    if when == "waits":
        fail(engine)
        engine.dispatcher.cancel(job, "test")
        assert engine.ended == [job]
    else:
        engine.begin(0)
        engine.dispatcher.cancel(job, "test")
        if when == "fails":
            engine.finish(0, status=Status.FAILED, body=b"")
        engine.die(0)
        engine.replace(0)
    engine.pass_time(100)

    assert engine.ended == [job]
    assert job.status == (Status.FAILED if when == "fails" else Status.CANCELLED)
    assert len(engine.ran) == 1
    assert engine.counts == (0, 0)


def test_a_task_that_was_late_and_is_cancelled_then_is_not_tried_again() -> None:
    """The cancellation counts, though the kill was for the deadline."""
    engine = ModelEngine()
    job = engine.post_one(retries=5, timeout=1.0)
    engine.begin(0)
    engine.pass_time(1.1)
    engine.dispatcher.cancel(job, "test")
    engine.die(0)

    assert engine.ended == [job]
    assert job.status == Status.CANCELLED
    assert engine.killed == [0]
