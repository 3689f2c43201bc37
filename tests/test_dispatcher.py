"""Which job goes where, and what becomes of it: decisions as plain calls on a model engine."""

from __future__ import annotations

import pytest
from model_engine import RESULT, ModelEngine

from trioserver._tasks._recorder import MAX_HANDED
from trioserver._tasks._run_times import WINDOW
from trioserver._tasks._wire import Status

LONG_RUN = 0.01
SHORT_RUN = 0.00002


def statuses(engine: ModelEngine) -> list[int | None]:
    return [job.status for job in engine.ended]


# Handing out


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


# Cancelling


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
    assert len(engine.dispatcher._books.queue) < 100


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


# Deaths


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


def test_a_spoilt_page_takes_nothing_back() -> None:
    """What is behind a cancelled job may have begun: nobody is killed for it."""
    engine = ModelEngine()
    first, second = engine.post(2)
    engine.begin(0)
    engine.workers[0].is_spoilt = True
    engine.dispatcher.cancel(first, "test")
    engine.pass_time(1)

    assert engine.killed == []
    engine.die(0)
    assert [first.status, second.status] == [Status.CANCELLED, Status.CRASHED]


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


# Reports


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
