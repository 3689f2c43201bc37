"""The dispatcher's decisions when a worker dies: what has crashed, and what runs elsewhere."""

from __future__ import annotations

import pytest
from model_engine import ModelEngine

from trioserver._tasks._wire import Status

LONG_RUN = 0.01
SHORT_RUN = 0.00002


def statuses(engine: ModelEngine) -> list[int | None]:
    return [job.status for job in engine.ended]


def test_a_death_costs_the_job_that_ran() -> None:
    """With the exit code; those not begun go back to where they were in the queue."""
    engine = ModelEngine()
    first, second, third = engine.post(3)
    engine.begin(0)
    engine.pass_time(0.5)
    engine.die(0, 3)

    assert engine.ended == [first]
    assert (first.status, first.body, first.worker_id) == (Status.CRASHED, b"3", 0)
    assert (first.begun_at, first.ran) == (100.0, 0.5)
    assert engine.counts == (2, 0)
    engine.replace(0)
    assert [engine.run(0), engine.run(0)] == [second, third]
    assert statuses(engine) == [Status.CRASHED, Status.OK, Status.OK]


def test_an_unknown_exit_code_is_no_code() -> None:
    """The death may have shown before the code did."""
    engine = ModelEngine()
    job = engine.post_one()
    engine.begin(0)
    engine.die(0, None)

    assert (job.status, job.body) == (Status.CRASHED, b"")


def test_finished_jobs_keep_their_results_through_a_death() -> None:
    """What was on the page and not sent counts; what was begun has crashed; the rest waits."""
    engine = ModelEngine()
    engine.learn(SHORT_RUN)
    jobs = engine.post(200)
    while len(engine.given(0)) < 5:
        engine.run(0, SHORT_RUN)
    ended = len(engine.ended)
    for _ in range(2):
        engine.begin(0)
        engine.finish(0)
    engine.begin(0)
    engine.die(0)

    assert statuses(engine)[ended:] == [Status.OK, Status.OK, Status.CRASHED]
    engine.replace(0)
    while engine.given(0):
        engine.run(0)
    assert engine.ended == jobs


@pytest.mark.parametrize("lives", [1, 2, 3])
def test_the_death_of_a_worker_that_has_begun_nothing_costs_nothing(lives: int) -> None:
    """Also of the second process and the third, whose numbers begin again."""
    engine = ModelEngine()
    for _ in range(lives - 1):
        engine.post_one()
        engine.run(0)
        engine.die(0)
        engine.replace(0)
    ended = len(engine.ended)

    job = engine.post_one()
    engine.die(0)

    assert len(engine.ended) == ended
    assert engine.counts == (1, 0)
    engine.replace(0)
    assert engine.run(0) is job


def test_jobs_of_a_dead_worker_go_to_another_one_in_order() -> None:
    """They are before all that were posted after them."""
    engine = ModelEngine(2)
    engine.learn(SHORT_RUN)
    engine.post(300)
    for number in (0, 1):
        engine.begin(number)
    behind = engine.given(0)[1:]
    running = engine.given(1)
    engine.die(0)

    while engine.given(1):
        if engine.workers[1].running:
            engine.end(1)
        else:
            engine.run(1)

    assert engine.ran[2:][: len(running) - 1] == running[1:]
    rest = engine.ran[len(running) + 1 :]
    assert rest[: len(behind)] == behind
    assert len(engine.ended) == 300


@pytest.mark.parametrize("begun", [None, (10**6, 0.0), (2, 0.0)])
def test_a_page_that_makes_no_sense_costs_all_that_was_handed(
    begun: tuple[int, float] | None,
) -> None:
    """It has begun more than it got, or less than it has reported: all may have run."""
    engine = ModelEngine()
    for _ in range(3):
        engine.post_one()
        engine.run(0)
    jobs = engine.post(3)
    handed = engine.given(0)
    assert handed == jobs[:2]
    engine.begin(0)
    engine.dispatcher.worker_died(0, -11, begun)

    assert engine.ended[3:] == handed
    assert {job.status for job in handed} == {Status.CRASHED}
    assert all(job.ran == 0.0 for job in handed)
    assert engine.counts == (1, 0)


def test_a_spoilt_page_does_not_protect_what_runs() -> None:
    """Nobody knows what has begun there, so that all that is in hand goes with the worker."""
    engine = ModelEngine()
    first, second = engine.post(2)
    engine.begin(0)
    engine.workers[0].is_spoilt = True
    engine.dispatcher.cancel(first, "test")

    assert engine.killed == [0]
    engine.die(0)
    assert engine.ended == [first, second]
    assert first.status == Status.CANCELLED
    assert second.status == Status.CRASHED


def test_a_page_that_takes_back_what_it_said_harms_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It said that both were late, and lets the second be taken back: that one runs elsewhere."""
    engine = ModelEngine()
    first, second = engine.post(2, timeout=1.0)
    engine.begin(0)
    worker = engine.workers[0]
    truth = worker.begun
    monkeypatch.setattr(engine, "begun_at", lambda _number, _seq: worker.begun_at(first.seq))
    monkeypatch.setattr(engine, "begun", lambda _: (second.seq, engine.now))
    engine.pass_time(2.0)

    assert worker.begun == truth
    assert engine.killed == [0]
    engine.die(0)
    engine.replace(0)
    assert (first.status, second.status) == (Status.TIMED_OUT, None)
    assert engine.run(0) is second
    assert engine.ended == [first, second]


def test_a_job_that_could_not_be_taken_back_and_never_began_ends_as_cancelled() -> None:
    """An engine may not know whether it has begun; the death tells, and then it must not run."""
    engine = ModelEngine()
    job = engine.post_one()
    engine.workers[0].is_spoilt = True
    engine.dispatcher.cancel(job, "test")
    engine.workers[0].is_spoilt = False
    engine.die(0)

    assert engine.ended == [job]
    assert (job.status, job.worker_id) == (Status.CANCELLED, None)
    assert engine.counts == (0, 0)
