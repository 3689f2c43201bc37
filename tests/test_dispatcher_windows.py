"""How much is handed ahead, whom it is worth waking, and when it is taken back again."""

from __future__ import annotations

import pytest
from model_engine import ModelEngine

from trioserver._tasks._run_times import LONG, MAX_AHEAD, WAKE_WORTH, WINDOW
from trioserver._tasks._watching import HELD_UP, TAKE_UP
from trioserver._tasks._wire import Status


def ahead(engine: ModelEngine, ran: float) -> int:
    """How many worker 0 has behind the one that it runs, under the largest backlog."""
    engine.post(10 * MAX_AHEAD)
    while not engine.workers[0].running:
        engine.begin(0)
    most = 0
    for _ in range(3):  # the window fills up over a few reports
        most = max(most, len(engine.given(0)) - 1)
        engine.finish(0, ran)
        engine.send(0)
        engine.begin(0)
    return max(most, len(engine.given(0)) - 1)


@pytest.mark.parametrize(
    ("ran", "expected"),
    [
        (1.0, 1),
        (LONG, 1),
        (WINDOW / 10, 10),
        (WINDOW / 50, 50),
        (1e-6, MAX_AHEAD),
        (0.0, MAX_AHEAD),
    ],
)
def test_about_two_milliseconds_of_work_are_handed_ahead(ran: float, expected: int) -> None:
    """By recent run times: one where they are long, and never more than a bound."""
    engine = ModelEngine()
    engine.learn(ran, runs=200)

    assert ahead(engine, ran) == pytest.approx(expected, abs=max(1, expected * 0.05))


def test_one_is_handed_ahead_while_run_times_are_unknown() -> None:
    """Before the first report."""
    engine = ModelEngine()
    engine.post(100)

    assert len(engine.given(0)) == 2


def test_the_window_follows_the_run_times() -> None:
    """Tasks that become long are handed ahead one by one after a few of them."""
    engine = ModelEngine()
    engine.learn(WINDOW / 50)
    engine.learn(0.5, runs=20)

    engine.post(100)

    assert len(engine.given(0)) == 2


def test_short_jobs_travel_together() -> None:
    """Many in one message, once there is a backlog."""
    engine = ModelEngine()
    engine.learn(WINDOW / 50)

    engine.post(1000)
    while engine.given(0):
        engine.run(0, WINDOW / 50)

    assert len(engine.ended) == 1000
    assert len(engine.messages) < 100


def test_a_backlog_is_shared_among_idle_workers() -> None:
    """No worker takes all of it, and waking others costs a message each."""
    engine = ModelEngine(4)
    engine.learn(WINDOW / 50)

    engine.post(100)

    given = [len(engine.given(number)) for number in range(4)]
    assert all(given)
    assert max(given) <= 60


def test_a_second_worker_is_not_woken_for_less_than_a_round_trip() -> None:
    """A few microseconds of work are done sooner by the one that is awake."""
    engine = ModelEngine(2)
    engine.learn(WAKE_WORTH / 10)

    engine.post(3)
    assert sorted(len(engine.given(number)) for number in range(2)) == [0, 2]
    assert engine.counts == (2, 1)

    engine.post(12)
    assert all(engine.given(number) for number in range(2))


def test_a_second_worker_is_woken_when_the_first_makes_no_progress() -> None:
    """A task that is unexpectedly long holds up nobody for longer than the window."""
    engine = ModelEngine(2)
    engine.learn(WAKE_WORTH / 10)
    first, second, third = engine.post(3)
    (busy,) = [number for number in range(2) if engine.given(number)]
    assert engine.begin(busy) is first

    engine.pass_time(2 * WINDOW)

    assert engine.given(busy) == [first]
    assert engine.given(1 - busy)[0] is second
    engine.run(1 - busy)
    engine.pass_time(2 * WINDOW)
    assert engine.run(1 - busy) in {second, third}


def test_unknown_run_times_are_worth_waking_everybody() -> None:
    """The first tasks spread over all workers at once."""
    engine = ModelEngine(4)
    engine.post(4)

    assert all(engine.given(number) for number in range(4))


def test_long_jobs_are_taken_back_for_an_idle_worker_at_once() -> None:
    """What was handed ahead goes to whoever is free first."""
    engine = ModelEngine(2)
    jobs = engine.post(4)
    engine.begin(0)
    engine.begin(1)
    assert [engine.given(0), engine.given(1)] == [[jobs[0], jobs[2]], [jobs[1], jobs[3]]]

    engine.end(1, 0.5)
    engine.run(1, 0.5)

    assert engine.given(0) == [jobs[0]]
    assert engine.given(1) == [jobs[2]]
    assert engine.counts == (0, 2)


def test_no_short_job_waits_behind_a_long_one() -> None:
    """Two long and a hundred short on three workers: all short ones run on the third."""
    engine = ModelEngine(3)
    long = engine.post(2)
    engine.begin(0)
    engine.begin(1)
    short = engine.post(100)

    for _ in range(1000):
        if engine.workers[2].orders:
            engine.run(2, 1e-5)
        else:
            engine.pass_time(WINDOW)

    assert set(engine.ended) == set(short)
    assert [engine.given(0), engine.given(1)] == [[job] for job in long]


def test_short_jobs_behind_a_slow_one_go_to_other_workers() -> None:
    """When the window is over, all that the slow one has not begun is taken back."""
    engine = ModelEngine(2)
    engine.learn(WINDOW / 50)
    engine.post(200)
    slow = engine.begin(0)
    assert len(engine.given(0)) > 10

    engine.pass_time(2 * WINDOW)
    assert engine.given(0) == [slow]
    while engine.given(1):
        engine.run(1, WINDOW / 50)

    assert len(engine.ended) == 199


def test_nothing_is_handed_to_a_worker_that_is_held_up() -> None:
    """Until it reports; then it takes part again."""
    engine = ModelEngine()
    engine.learn(WINDOW / 50)
    engine.post(200)
    engine.begin(0)
    engine.pass_time(2 * WINDOW)
    assert len(engine.given(0)) == 1
    engine.post(10)
    assert len(engine.given(0)) == 1

    engine.end(0)
    while engine.workers[0].orders:
        engine.run(0, WINDOW / 50)
    assert len(engine.ended) == 210


def test_reports_kept_behind_a_long_task_are_fetched() -> None:
    """Results of short tasks are sent together; none waits for a long task's end."""
    engine = ModelEngine()
    engine.learn(WINDOW / 50)
    engine.post(200)
    for _ in range(3):
        engine.begin(0)
        engine.finish(0)
    engine.begin(0)
    assert engine.ended == []

    engine.pass_time(2 * WINDOW)

    assert [job.status for job in engine.ended] == [Status.OK] * 3


def test_jobs_behind_a_long_task_and_its_kept_reports_go_elsewhere() -> None:
    """The reports stay on the page after they were fetched, and are no news the second time."""
    engine = ModelEngine(2)
    engine.learn(WINDOW / 50)
    engine.post(200)
    for _ in range(3):
        engine.begin(0)
        engine.finish(0)
    slow = engine.begin(0)

    engine.pass_time(4 * WINDOW)
    assert engine.given(0) == [slow]
    while engine.given(1):
        engine.run(1, WINDOW / 50)

    assert len(engine.ended) == 199
    engine.finish(0)
    engine.send(0)
    assert len(engine.ended) == 200


def test_a_report_kept_behind_the_second_task_ever_is_fetched() -> None:
    """Also where the look at the worker fell into a first task that had only just begun."""
    engine = ModelEngine()
    first, _ = engine.post(2)
    engine.pass_time(0.9 * WINDOW)  # the worker was slow to wake up
    engine.begin(0)
    engine.pass_time(0.2 * WINDOW)
    engine.finish(0)
    engine.begin(0)

    engine.pass_time(3 * WINDOW)

    assert engine.ended == [first]


def test_an_idle_pool_sets_no_alarm() -> None:
    """Nothing polls without work, and hardly anything while each worker has only what it runs."""
    engine = ModelEngine(2)
    engine.post(2)
    engine.begin(0)
    engine.begin(1)
    began = engine.now
    engine.pass_time(HELD_UP)
    assert engine.alarm == began + TAKE_UP
    engine.pass_time(TAKE_UP - HELD_UP)
    assert engine.alarm == engine.now + TAKE_UP

    engine.end(0)
    engine.end(1)
    engine.pass_time(TAKE_UP)
    assert engine.alarm is None


def test_a_long_task_under_a_backlog_is_looked_at_a_few_times_only() -> None:
    """One could end and not be able to say so, but how long it has run tells how often to look."""
    engine = ModelEngine()
    engine.post(10)
    engine.begin(0)
    looks = 0
    while engine.now < 3700:
        assert engine.alarm is not None
        engine.pass_time(engine.alarm - engine.now)
        looks += 1

    assert looks < 3600 / 60 + 12  # one a minute, and some more at the begin
