"""Jobs that no worker has in hand: their order, their times, and what is kept of the ended ones."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

from trioserver._tasks._job import DELAYED, QUEUED, Job
from trioserver._tasks._options import Options
from trioserver._tasks._queue import Queue
from trioserver._tasks._wire import Status

if TYPE_CHECKING:
    from trioserver._tasks._job import Sink


def job(**options: Any) -> Job:
    return Job(0, b"", cast("Sink", None), Options(**options))


def put(queue: Queue, now: float, **options: Any) -> Job:
    made = job(**options)
    queue.put(made, now)
    return made


def end(queue: Queue, ended: Job) -> None:
    ended.status = Status.CANCELLED
    queue.drop(ended)


def test_first_come_first_served() -> None:
    """Ended ones are passed over."""
    queue = Queue(1)
    jobs = [put(queue, float(at)) for at in range(4)]
    end(queue, jobs[0])
    end(queue, jobs[2])

    assert queue.shared == queue.waiting == 2
    assert queue.oldest_at == 1.0
    assert queue.next_ones(0, 2) == [jobs[1], jobs[3]]
    assert queue.waiting == 0
    assert queue.oldest_at is None


def test_pinned_and_shared_jobs_take_turns_by_time() -> None:
    """What is pinned to another worker is not seen."""
    queue = Queue(2)
    shared, pinned, other = (
        put(queue, 1.0),
        put(queue, 2.0, task_worker=0),
        put(queue, 0.0, task_worker=1),
    )
    last = put(queue, 3.0)

    assert (queue.shared, queue.pinned, queue.waiting) == (2, 2, 4)
    assert not queue.is_pinned_next(0)
    assert queue.is_pinned_next(1)
    assert [queue.next_for(0), queue.next_for(0)] == [shared, pinned]
    assert not queue.has_pinned(0)
    assert queue.next_for(1) is other
    assert queue.next_ones(0, 1) == [last]


def test_what_is_put_back_is_first_again() -> None:
    """In its order, in its own line."""
    queue = Queue(2)
    jobs = [put(queue, 0.0, task_worker=worker) for worker in (None, 0, None, 0)]
    out = queue.next_ones(0, 4)
    late = put(queue, 1.0)
    for number, one in enumerate(out):
        one.worker_id, one.seq = 0, number + 1

    queue.put_back(out)

    assert {(one.worker_id, one.seq) for one in jobs} == {(None, QUEUED)}
    assert (queue.shared, queue.pinned) == (3, 2)
    assert queue.next_ones(1, 3) == [jobs[0], jobs[2], late]
    assert [queue.next_for(0) for _ in range(2)] == [jobs[1], jobs[3]]


def test_a_delayed_job_is_in_line_when_its_time_has_come() -> None:
    """Not before, and behind those who are there; an ended one never."""
    queue = Queue(1)
    soon, later, never = job(), job(), job()
    queue.delay(later, 9.0)
    queue.delay(soon, 5.0)
    queue.delay(never, 4.0)
    assert (soon.seq, queue.delayed, queue.waiting) == (DELAYED, 3, 3)
    end(queue, never)
    assert queue.due_at == 4.0

    queue.release(4.9)
    assert (queue.shared, queue.delayed) == (0, 2)
    queue.release(5.0)
    assert (queue.shared, queue.delayed) == (1, 1)
    assert (soon.queued_at, soon.seq) == (5.0, QUEUED)
    assert queue.next_ones(0, 1) == [soon]
    assert queue.due_at == 9.0


def test_who_waits_too_long_is_found() -> None:
    """Wherever it waits, but not twice, and not if it waits anew since then."""
    queue = Queue(1)
    late, ended, retried = (put(queue, 0.0, queue_timeout=1.0) for _ in range(3))
    put(queue, 0.5, queue_timeout=1.0)
    put(queue, 0.0)
    end(queue, ended)
    assert queue.due_at == 1.0
    assert queue.take_late(0.9) == []
    assert queue.next_ones(0, 2) == [late, retried]
    queue.delay(retried, 0.95)
    queue.release(0.95)

    assert queue.take_late(1.0) == [late]
    assert queue.take_late(1.2) == []


def test_ended_jobs_do_not_pile_up() -> None:
    """However many end before they are met."""
    queue = Queue(1)
    put(queue, 0.0)
    for at in range(10_000):
        end(queue, put(queue, float(at), queue_timeout=1e9))
        pinned = put(queue, float(at), task_worker=0)
        end(queue, pinned)
        delayed = job()
        queue.delay(delayed, 1e9)
        end(queue, delayed)

    assert queue.waiting == 1
    kept = [
        len(queue.line.jobs),
        len(queue._pinned[0].jobs),
        len(queue._delays),
        len(queue._limits),
    ]
    assert max(kept) < 200
    assert queue.due_at < math.inf
