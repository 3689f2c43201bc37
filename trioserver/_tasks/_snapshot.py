"""How a dispatcher's books become statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioserver._tasks._statistics import (
    Quantiles,
    RunningTask,
    TaskStatistics,
    TaskWorkerStatistics,
)
from trioserver._tasks._wire import Status

if TYPE_CHECKING:
    from trioserver._tasks._books import Books, Worker
    from trioserver._tasks._engine import Engine
    from trioserver._tasks._statistics import Counters


def statistics_of(books: Books, counters: Counters, engine: Engine, now: float) -> TaskStatistics:
    """All numbers as they are at ``now``."""
    ended = counters.ended
    oldest_at = books.queue.oldest_at
    leaving = sorted(
        (worker for worker in books.workers.values() if worker.is_leaving),
        key=lambda worker: (worker.number, worker.seat),
    )
    return TaskStatistics(
        posted=counters.posted,
        queued=books.waiting,
        running=books.running,
        completed=ended[Status.OK],
        failed=ended[Status.FAILED],
        timed_out=ended[Status.TIMED_OUT],
        cancelled=ended[Status.CANCELLED],
        crashed=ended[Status.CRASHED],
        abandoned=counters.abandoned,
        retried=counters.retried,
        oldest_queued=0.0 if oldest_at is None else now - oldest_at,
        wait=Quantiles.of(counters.waits),
        run=Quantiles.of(counters.runs),
        idle_workers=sum(worker.ready and not worker.handed for worker in books.current),
        dead_workers=sum(not worker.ready for worker in books.current),
        workers=tuple(_worker(worker, engine, now) for worker in [*books.current, *leaving]),
    )


def _worker(worker: Worker, engine: Engine, now: float) -> TaskWorkerStatistics:
    pid = engine.pid(worker.seat)
    if worker.is_leaving or (worker.is_worn and pid is not None):
        state = "leaving"
    elif not worker.ready:
        state = "dead"
    else:
        state = "busy" if worker.handed else "idle"
    return TaskWorkerStatistics(
        id=worker.number,
        pid=pid,
        state=state,
        tasks_done=worker.runs_before + worker.runs,
        rss=engine.memory(worker.seat),
        running=_running(worker, engine, now) if worker.ready else (),
    )


def _running(worker: Worker, engine: Engine, now: float) -> tuple[RunningTask, ...]:
    begun = engine.begun(worker.seat) if worker.handed else None
    if begun is None:
        return ()
    running = []
    for job in worker.handed.values():
        if job.seq <= begun[0]:
            begun_at = engine.begun_at(worker.seat, job.seq)
            if begun_at <= now:  # else it has ended, or begins in this moment
                running.append(RunningTask(job.id, job.attempt, now - begun_at))
    return tuple(running)
