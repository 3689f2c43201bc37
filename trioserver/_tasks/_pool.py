"""The task pool of an event worker: admits tasks, knows who waits for them, delivers completions.

Rules:

1. Data is pickled before anything else happens, so a task that cannot travel was never accepted.
2. An accepted task is in the books until it has ended, and then has exactly one hearer: the caller
   of `run_task`, or ``on_finish`` by way of the channel.
3. Posts wait while the queue is full, and also while completions pile up in front of a slow
   ``on_finish``: else those would grow without bound. An ``on_finish`` that posts waits for the
   queue alone, which workers empty whatever it does; so it may wait, and nothing deadlocks.
"""

from __future__ import annotations

import itertools
import logging
import pickle
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, cast

import trio

from trioserver._tasks._admission import Admission
from trioserver._tasks._calls import KILL_TIME, run_jobs
from trioserver._tasks._finishing import FinishLoops, is_in_on_finish
from trioserver._tasks._job import Job
from trioserver._tasks._values import Completion
from trioserver._tasks._wire import Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from trioserver._pacing import Pacer
    from trioserver._settings import Settings
    from trioserver._stopping import Stopping
    from trioserver._tasks._dispatcher import Dispatcher
    from trioserver._tasks._finishing import OnFinish
    from trioserver._tasks._job import Owner

ResultT = TypeVar("ResultT")
ArgsT = TypeVarTuple("ArgsT")

logger = logging.getLogger("trioserver.tasks")


class TaskPool:
    """Posts tasks and hears how they end; `Server` has methods of the same names, explained."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        nursery: trio.Nursery,
        on_finish: OnFinish,
        max_queued_tasks: int,
        pacer: Pacer,
    ) -> None:
        self._dispatcher = dispatcher
        self._finish_loops = FinishLoops(nursery, self._delivered, pacer)
        self._on_finish = on_finish
        self._max_queued_tasks = max_queued_tasks
        self._pacer = pacer
        self._ids = itertools.count()
        self._jobs: dict[int, Job] = {}
        self._of_stream: dict[Owner, set[Job]] = {}
        self._undelivered = 0
        # Set at the next end or delivery, None while nobody waits for it.
        self._changed: trio.Event | None = None
        self._for_on_finish = Admission(self._room_in_queue)
        self._for_others = Admission(self._room_for_others)
        dispatcher.on_room(self._call)

    # Posting

    async def task(self, data: object, *, stream: Owner | None, on_finish: OnFinish | None) -> int:
        return await self._post(self._job(data, stream, on_finish))

    def task_nowait(self, data: object, *, stream: Owner | None, on_finish: OnFinish | None) -> int:
        job = self._job(data, stream, on_finish)
        self._admission().enter_nowait()
        return self._accept(job)

    async def run_task(self, data: object) -> object:
        (completion,) = await self.run_tasks([data])
        return completion.result

    async def run_tasks(self, items: Iterable[object]) -> list[Completion]:
        return await self._run(
            Job(Kind.TASK, dump(item, "the task's data"), self) for item in items
        )

    async def run_sync(self, fn: Callable[[*ArgsT], ResultT], args: tuple[*ArgsT]) -> ResultT:
        what = f"{getattr(fn, '__qualname__', repr(fn))} with its arguments"
        (completion,) = await self._run([Job(Kind.CALL, dump((fn, args), what), self)])
        return cast("ResultT", completion.result)

    # Ending

    def cancel(self, task_id: int) -> bool:
        job = self._jobs.get(task_id)
        if job is None:
            return False
        self._dispatcher.cancel(job, "server.cancel was called")
        return True

    def cancel_of_stream(self, stream: Owner) -> None:
        """End what ``stream`` has posted: its client has left."""
        for job in list(self._of_stream.get(stream, ())):
            self._dispatcher.cancel(job, "its connection closed")

    def cancel_all(self, reason: str) -> int:
        """End every task; how many there were."""
        jobs = list(self._jobs.values())
        # The newest first: what a worker has in hand ends last, so the queue does not move up.
        for job in reversed(jobs):
            self._dispatcher.cancel(job, reason)
        return len(jobs)

    def close(self) -> None:
        """Refuse what is posted from now on."""
        self._for_on_finish.close()
        self._for_others.close()

    def close_finish_loops(self) -> None:
        """Deliver what is to be delivered, and nothing after it."""
        self._finish_loops.close()

    async def wait_ended(self) -> None:
        """Until every task has ended."""
        while self._jobs:
            await self._wait_changed()

    async def wait_idle(self) -> None:
        """Until every task has ended and ``on_finish`` has returned for it."""
        while self._jobs or self._undelivered:
            await self._wait_changed()

    @property
    def undelivered(self) -> int:
        """Completions whose ``on_finish`` has not returned."""
        return self._undelivered

    # What the dispatcher calls

    def job_ended(self, job: Job) -> None:
        """Deliver how ``job`` ended (`_job.Sink`)."""
        del self._jobs[job.id]
        if job.stream is not None:
            of_stream = self._of_stream[job.stream]
            of_stream.discard(job)
            if not of_stream:
                del self._of_stream[job.stream]
        if job.caller is not None:
            job.caller.one_ended()
        else:
            try:
                self._finish_loops.deliver(job.on_finish or self._on_finish, Completion(job))
            except trio.ClosedResourceError:
                return  # the pool ended at once; this job is among those that it has counted
            self._undelivered += 1
        self._tell_changed()

    # Inside

    def _delivered(self) -> None:
        """An ``on_finish`` has returned."""
        self._undelivered -= 1
        self._call()
        self._tell_changed()

    def _admission(self) -> Admission:
        return self._for_on_finish if is_in_on_finish() else self._for_others

    def _room_in_queue(self) -> int:
        return self._max_queued_tasks - self._dispatcher.waiting

    def _room_for_others(self) -> int:
        undelivered = self._max_queued_tasks - self._undelivered
        return min(self._room_in_queue() - len(self._for_on_finish), undelivered)

    def _call(self) -> None:
        self._for_on_finish.call()
        self._for_others.call()

    def _job(self, data: object, stream: Owner | None, on_finish: OnFinish | None) -> Job:
        if on_finish is not None and not callable(on_finish):
            raise TypeError(f"on_finish must be a coroutine function: {on_finish!r}")
        job = Job(Kind.TASK, dump(data, "the task's data"), self)
        job.stream = stream
        job.on_finish = on_finish
        return job

    async def _post(self, job: Job) -> int:
        await self._pacer.checkpoint()
        admission = self._admission()
        try:
            admission.enter_nowait()
        except trio.WouldBlock:
            return await admission.post_in_turn(lambda: self._accept(job))
        return self._accept(job)

    def _accept(self, job: Job) -> int:
        if job.stream is not None and job.stream.is_closed:
            # It closed while the post waited in line; nothing would ever end the task.
            raise trio.ClosedResourceError("the connection that the task would belong to is closed")
        job.id = next(self._ids)
        job.posted_at = self._dispatcher.clock()
        self._jobs[job.id] = job
        if job.stream is not None:
            self._of_stream.setdefault(job.stream, set()).add(job)
        self._dispatcher.accept(job)
        return job.id

    async def _run(self, jobs: Iterable[Job]) -> list[Completion]:
        await self._pacer.checkpoint()
        return await run_jobs(jobs, self._post, self._dispatcher.cancel)

    async def _wait_changed(self) -> None:
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    def _tell_changed(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


def dump(value: object, what: str) -> bytes:
    """Pickle ``value`` for the way to a worker.

    Raises:
      TypeError: if it cannot be pickled; the message says ``what`` it is and why.
    """
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as exc:
        kind = type(value).__name__
        raise TypeError(f"{what} of type {kind} cannot be pickled: {exc}") from exc


@asynccontextmanager
async def open_task_pool(
    dispatcher: Dispatcher,
    on_finish: OnFinish,
    settings: Settings,
    stopping: Stopping,
    pacer: Pacer,
) -> AsyncIterator[TaskPool]:
    """A pool over ``dispatcher``, and the loops that deliver its completions.

    On a regular exit tasks go on until the deadline of ``stopping``, those that are posted
    meanwhile too; what is left then ends as `TaskCancelled`, and is delivered as everything else.
    When the body raises or is cancelled, tasks are ended at once and nothing is delivered.
    What was cut is counted in ``stopping.cut``.
    """
    async with trio.open_nursery() as finishing:
        pool = TaskPool(dispatcher, finishing, on_finish, settings.max_queued_tasks, pacer)
        try:
            yield pool
            with stopping.until_deadline():
                await pool.wait_idle()
        except BaseException:
            stopping.cut += pool.undelivered
            pool.close_finish_loops()
            raise
        finally:
            pool.close()
            stopping.cut += pool.cancel_all("the server stopped")
        # What runs is being killed, and its completions are worth more than a strict deadline.
        with trio.move_on_after(KILL_TIME):
            await pool.wait_ended()
        with stopping.for_a_stage():
            await pool.wait_idle()
        if pool.undelivered:
            logger.error("%d completions were not delivered in time", pool.undelivered)
            stopping.cut += pool.undelivered
            finishing.cancel_scope.cancel()
        pool.close_finish_loops()
