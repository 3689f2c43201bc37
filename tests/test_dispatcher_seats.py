"""Fresh workers that take the numbers of old ones, and numbers that come and go."""

from __future__ import annotations

from model_engine import ModelEngine

from trioserver._tasks._policy import Policy
from trioserver._tasks._wire import Status


def rows(engine: ModelEngine) -> list[tuple[int, str, int]]:
    """What users see of the workers: number, state, tasks done."""
    told = engine.dispatcher.statistics().workers
    return [(worker.id, worker.state, worker.tasks_done) for worker in told]


def test_a_fresh_worker_takes_what_the_old_one_has_not_begun() -> None:
    """In the order of posting; the old one is retired when its task is over."""
    engine = ModelEngine()
    engine.learn(1e-5)
    first = engine.post_one()
    engine.begin(0)
    rest = []
    for options in ({}, {"task_worker": 0}, {}):
        engine.now += 1e-5
        rest += engine.post(3, **options)
    fresh = engine.seat_fresh(0)
    assert engine.given(0) == [first]
    engine.pass_time(1)
    while engine.workers[fresh].orders:
        engine.run(fresh)
    assert engine.ran == [first, *rest]
    assert engine.retired == []
    engine.end(0)
    assert engine.retired == [0]
    assert {job.worker_id for job in engine.ended} == {0}


def test_an_idle_old_worker_is_retired_at_once() -> None:
    """It has nothing to end."""
    engine = ModelEngine()
    engine.seat_fresh(0)
    assert engine.retired == [0]


def test_a_dead_worker_is_not_waited_for() -> None:
    """Its seat is empty for good, and what it had not begun runs on the fresh one."""
    engine = ModelEngine()
    job = engine.post_one(task_worker=0)
    engine.die(0)
    fresh = engine.seat_fresh(0)
    assert engine.retired == []
    assert len(rows(engine)) == 1
    engine.run(fresh)
    assert engine.ended == [job]


def test_each_attempt_counts_once_in_the_statistics() -> None:
    """An old worker counts what its own process has run, and its successor the others."""
    engine = ModelEngine()
    engine.post(3)
    for _ in range(3):
        engine.run(0)
    engine.die(0)
    engine.replace(0)
    engine.post(2)
    engine.run(0)
    engine.begin(0)
    fresh = engine.seat_fresh(0)
    assert rows(engine) == [(0, "idle", 3), (0, "leaving", 1)]
    engine.end(0)
    assert rows(engine) == [(0, "idle", 3), (0, "leaving", 2)]
    engine.die(0, 0)
    assert rows(engine) == [(0, "idle", 5)]
    engine.post()
    engine.run(fresh)
    assert rows(engine) == [(0, "idle", 6)]


def test_idle_and_dead_workers_are_counted_without_old_ones() -> None:
    """An old one is there, and not for anybody."""
    engine = ModelEngine(2)
    engine.post()
    engine.begin(0)
    engine.seat_fresh(0)
    engine.die(1)
    told = engine.dispatcher.statistics()
    assert (told.idle_workers, told.dead_workers, told.running) == (1, 1, 1)
    assert [(worker.id, worker.state) for worker in told.workers] == [
        (0, "idle"),
        (1, "dead"),
        (0, "leaving"),
    ]


def test_jobs_of_a_number_that_is_gone_end_at_once() -> None:
    """In line, handed ahead, and waiting for their next attempt; in the order of posting."""
    engine = ModelEngine(2)
    delayed = engine.post_one(task_worker=1, retries=1)
    engine.begin(1)
    engine.finish(1, status=Status.FAILED)
    engine.send(1)
    jobs = engine.post(4, task_worker=1)
    engine.begin(1)
    assert engine.dispatcher.statistics().queued == 4
    engine.dismiss()
    assert engine.ended == [*jobs[1:], delayed]
    for job in engine.ended:
        assert (job.status, job.body) == (Status.CANCELLED, b"there is no task worker 1 any more")
    assert engine.counts == (0, 1)
    engine.end(1)
    assert engine.retired == [1]
    engine.die(1, 0)
    assert rows(engine) == [(0, "idle", 0)]


def test_a_job_for_a_number_that_has_just_gone_is_accepted_and_ends() -> None:
    """Its poster may have waited in line since before."""
    engine = ModelEngine(2)
    engine.dismiss()
    job = engine.post_one(task_worker=1)
    assert (job.status, job.worker_id) == (Status.CANCELLED, None)
    assert engine.dispatcher.statistics().is_balanced


def test_the_last_attempt_at_a_number_that_is_gone_counts() -> None:
    """Nobody can try it again, so it ends as that attempt has."""
    engine = ModelEngine(2)
    job = engine.post_one(task_worker=1, retries=3)
    engine.begin(1)
    engine.dismiss()
    engine.finish(1, status=Status.FAILED, body=b"why")
    engine.send(1)
    assert (job.status, job.body, job.worker_id) == (Status.FAILED, b"why", 1)


def test_a_number_that_is_back_is_a_fresh_one() -> None:
    """It takes pinned jobs again, though an old one of that number still runs."""
    engine = ModelEngine(2)
    first = engine.post_one(task_worker=1)
    engine.begin(1)
    engine.dismiss()
    fresh = engine.seat_fresh(1)
    second = engine.post_one(task_worker=1)
    engine.run(fresh)
    assert engine.ended == [second]
    assert rows(engine) == [(0, "idle", 0), (1, "idle", 1), (1, "leaving", 0)]
    engine.end(1)
    engine.die(1, 0)
    assert engine.ended == [second, first]
    assert rows(engine) == [(0, "idle", 0), (1, "idle", 2)]


def test_a_cancel_reaches_a_task_on_an_old_worker() -> None:
    """Also while a job of the same seq runs on the fresh one."""
    engine = ModelEngine()
    first = engine.post_one()
    engine.begin(0)
    fresh = engine.seat_fresh(0)
    second = engine.post_one()
    engine.begin(fresh)
    assert first.seq == second.seq
    engine.dispatcher.cancel(first, "test")
    assert engine.killed == [0]
    engine.die(0)
    assert first.status == Status.CANCELLED
    assert second.status is None


def test_several_tasks_of_an_old_worker_end_one_by_one() -> None:
    """Where it runs several at a time it leaves after the last one."""
    engine = ModelEngine(policy=Policy(concurrency=3, grace=0.2))
    jobs = engine.post(3)
    engine.begin_concurrently(0)
    engine.begin_concurrently(0)
    fresh = engine.seat_fresh(0)
    assert engine.given(fresh) == [jobs[2]]
    engine.end(0)
    assert engine.retired == []
    engine.end(0)
    assert engine.retired == [0]
