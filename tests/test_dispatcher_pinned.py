"""Pinned jobs among others on one worker: whatever is taken back, nothing is overtaken there."""

from __future__ import annotations

from model_engine import ModelEngine

from trioserver._tasks._run_times import WINDOW


def post_some(engine: ModelEngine) -> None:
    """A short backlog; every other one is pinned to worker 0."""
    for number in range(8):
        engine.now += 1e-6
        engine.post(1, task_worker=0 if number % 2 else None)


def test_what_lies_behind_a_slow_job_keeps_its_order() -> None:
    """It is taken back together, for a pinned one that stayed would run first."""
    engine = ModelEngine()
    engine.learn(WINDOW / 50)
    slow = engine.post_one()
    engine.begin(0)
    post_some(engine)
    before = engine.given(0)
    assert len(before) > 2
    engine.pass_time(3 * WINDOW)
    assert engine.given(0) == [slow]

    engine.end(0)
    engine.run_out()

    assert engine.ran == sorted(engine.ran, key=lambda job: job.queued_at)
    assert len(engine.ran) == 9


def test_a_pinned_job_in_front_of_others_stays() -> None:
    """Only what is behind the first one that others may run is taken back."""
    engine = ModelEngine()
    engine.learn(WINDOW / 50)
    slow = engine.post_one()
    engine.begin(0)
    (pinned,) = engine.post(1, task_worker=0)
    engine.now += 1e-6
    engine.post(1, task_worker=None)
    engine.pass_time(3 * WINDOW)

    assert engine.given(0) == [slow, pinned]


def test_nothing_begins_behind_a_job_that_is_taken_back() -> None:
    """The worker may begin the next one at any moment of it."""
    engine = ModelEngine()
    engine.learn(WINDOW / 50)
    engine.post_one()
    engine.begin(0)
    jobs = engine.post(200)
    assert len(engine.given(0)) > 2
    revoke = engine.revoke

    def revoke_and_go_on(seat: int, seq: int) -> bool:
        """Once, the worker ends what it runs right after the first is taken."""
        engine.revoke = revoke  # type: ignore[method-assign]  # as it was
        is_taken = revoke(seat, seq)
        engine.finish(0)
        while engine.begin(0) is None:
            continue
        return is_taken

    engine.revoke = revoke_and_go_on  # type: ignore[method-assign]  # the worker's moment
    engine.pass_time(3 * WINDOW)
    engine.end(0)
    engine.run_out()

    assert [job for job in engine.ran if job in jobs] == jobs
