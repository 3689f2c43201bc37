"""The task pool of an event worker: admits tasks, knows who waits for them, delivers completions.

Rules:

1. Data is pickled before anything else happens, so a task that cannot travel was never accepted.
2. An accepted task is in the books until it has ended, and then has exactly one hearer: the caller
   of `run_task`, or ``on_finish`` by way of the channel.
3. Whether a task may come in now is `_entrance`'s affair.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, cast

import trio

from trioserver._tasks._admission import CLOSED
from trioserver._tasks._calls import refuse_in_task, run_jobs
from trioserver._tasks._entrance import Entrance
from trioserver._tasks._finishing import FinishLoops
from trioserver._tasks._job import Job
from trioserver._tasks._options import Options
from trioserver._tasks._payloads import dump
from trioserver._tasks._progress import Progress
from trioserver._tasks._values import Completion
from trioserver._tasks._wire import Kind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from trioserver._pacing import Pacer
    from trioserver._settings import Settings
    from trioserver._tasks._finishing import Call, OnFinish
    from trioserver._tasks._job import Caller, Owner
    from trioserver._tasks._patience import Patience
    from trioserver._tasks._pool_dispatcher import PoolDispatcher
    from trioserver._tasks._progress import OnProgress
    from trioserver._tasks._statistics import TaskStatistics
    from trioserver._tasks._wire import Answer

ResultT = TypeVar("ResultT")
ArgsT = TypeVarTuple("ArgsT")

logger = logging.getLogger("trioserver.tasks")

# Plain numbers, because a job's kind travels.
_TASK: Final = int(Kind.TASK)
_CALL: Final = int(Kind.CALL)
_DATA: Final = "the task's data"


class Pool:
    """Posts tasks and hears how they end; `_task_calls` has methods of the same names, explained.

    Args:
      dispatcher: Has the tasks run.
      nursery: Where ``on_finish`` and ``on_progress`` are called.
      on_finish: Hears of all that ask for nothing else.
      on_progress: Hears of values, if the app wants any.
      settings: Bounds and defaults.
      pacer: Paces hot calls.
    """

    is_gone = False
    """It lives as long as its dispatcher is told of tasks (`_job.Sink`)."""

    def __init__(
        self,
        dispatcher: PoolDispatcher,
        nursery: trio.Nursery,
        on_finish: OnFinish,
        on_progress: OnProgress | None,
        settings: Settings,
        pacer: Pacer,
    ) -> None:
        self._dispatcher = dispatcher
        self._finish_loops = FinishLoops(nursery, pacer)
        self._progress = Progress(self._finish_loops, on_progress, self._tell_changed)
        self._on_finish = on_finish
        self._settings = settings
        self._max_task_size = settings.max_task_size
        self._pacer = pacer
        self._plain = Options(timeout=settings.task_timeout)
        self._jobs: dict[int, Job] = {}
        # Set at the next end or delivery, None while nobody waits for it.
        self._changed: trio.Event | None = None
        self._entrance = Entrance(dispatcher, self._accept, self._accept_all, settings, pacer)
        dispatcher.on_adopted(self._adopt)

    # Posting

    def options(
        self,
        timeout: float | None,
        queue_timeout: float,
        retries: int,
        task_worker: int | None,
    ) -> Options:
        """What a post asks for; see `Options.checked` for what is wrong with it."""
        if timeout is None:
            if queue_timeout == math.inf and retries == 0 and task_worker is None:
                return self._plain
            timeout = self._settings.task_timeout
        workers = self._dispatcher.workers
        return Options.checked(timeout, queue_timeout, retries, task_worker, workers)

    def task(
        self,
        data: object,
        options: Options | None = None,
        *,
        stream: Owner | None,
        on_finish: OnFinish | None,
    ) -> Awaitable[int]:
        # One coroutine less, in the call that must be quick.
        return self._entrance.post(self._job(data, options or self._plain, stream, on_finish))

    def task_nowait(
        self,
        data: object,
        options: Options | None = None,
        *,
        stream: Owner | None,
        on_finish: OnFinish | None,
    ) -> int:
        return self._entrance.post_nowait(
            self._job(data, options or self._plain, stream, on_finish)
        )

    async def run_task(self, data: object, options: Options | None = None) -> object:
        (completion,) = await self.run_tasks([data], options)
        return completion.result

    async def run_tasks(
        self, items: Iterable[object], options: Options | None = None
    ) -> list[Completion]:
        return await self._run(partial(self._asked, items, options or self._plain))

    async def run_sync(self, fn: Callable[[*ArgsT], ResultT], args: tuple[*ArgsT]) -> ResultT:
        what = f"{getattr(fn, '__qualname__', repr(fn))} with its arguments"
        job = Job(_CALL, dump((fn, args), what, self._max_task_size), self, self._plain)

        def asked(caller: Caller) -> list[Job]:
            job.caller = caller
            return [job]

        (completion,) = await self._run(asked)
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
        for job in reversed(self._entrance.jobs_of(stream)):  # see `cancel_all`
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
        self._entrance.close()

    def deliver_all(self) -> None:
        """Call ``on_finish`` also for tasks whose ``on_progress`` has not returned."""
        self._progress.let_last_go()

    def close_finish_loops(self) -> None:
        """Deliver what is to be delivered, and nothing after it."""
        self._finish_loops.close()

    async def wait_ended(self) -> None:
        """Until every task has ended."""
        while self._jobs:
            await self._wait_changed()

    async def wait_idle(self) -> None:
        """Until every task has ended, and what is called for it has returned."""
        while self._jobs or self.undelivered:
            await self._wait_changed()

    async def wait_heard_of(self, stream: Owner) -> None:
        """Until every task that ``stream`` has posted has ended and was heard of."""
        while self._entrance.owes(stream):
            await self._wait_changed()

    async def wait_while_heard(self, grace: float) -> None:
        """Until nothing is left to be heard, or for ``grace`` seconds nothing was."""
        while self.undelivered:
            before = self.undelivered
            with trio.move_on_after(grace):
                while self.undelivered >= before:
                    await self._wait_changed()
            if self.undelivered >= before:
                return

    @property
    def undelivered(self) -> int:
        """Calls of ``on_finish``, and of ``on_progress``, that have not returned."""
        return self._entrance.unheard + len(self._progress)

    def statistics(self) -> TaskStatistics:
        """All numbers as they are now."""
        return self._dispatcher.statistics()

    # What the dispatcher calls (`_job.Sink`)

    def jobs_ended(self, jobs: Sequence[Job]) -> None:
        """Deliver how ``jobs`` ended."""
        is_told_of = self._progress.is_calling
        delivered = self._entrance.heard
        own: list[Job] = []
        calls: list[Call] = []
        caller, count = None, 0
        for job in jobs:
            del self._jobs[job.id]
            if job.caller is not None:
                if job.caller is not caller:
                    if caller is not None:
                        caller.some_ended(count)
                    caller, count = job.caller, 0
                count += 1
                continue
            own.append(job)
            on_finish = job.on_finish or self._on_finish
            call: Call = ("on_finish", job, on_finish, Completion(job), delivered)
            if not (is_told_of and self._progress.keeps(job, call)):
                calls.append(call)
        if caller is not None:
            caller.some_ended(count)
        self._entrance.ended(jobs, own)
        if calls:
            try:
                self._finish_loops.call_soon(*calls)
            except trio.ClosedResourceError:
                for call in calls:
                    self._entrance.heard(call[1])  # the pool ended at once, and has counted it
        self._tell_changed()

    def job_progressed(self, job: Job, body: bytes) -> None:
        """Have ``on_progress`` called."""
        self._progress.tell(job, body)

    def job_posts(
        self,
        job: Job,  # noqa: ARG002  # what it posts is not its own
        payload: bytes,
    ) -> tuple[Answer, int, str]:
        """Accept what a task posts, if there is room now; it is nobody's but the server's."""
        return self._entrance.post_of_task(Job(_TASK, payload, self, self._plain))

    # Inside

    def _job(
        self, data: object, options: Options, stream: Owner | None, on_finish: OnFinish | None
    ) -> Job:
        if on_finish is not None and not callable(on_finish):
            raise TypeError(f"on_finish must be a coroutine function: {on_finish!r}")
        payload = dump(data, _DATA, self._max_task_size)
        job = Job(_TASK, payload, self, options)
        job.stream = stream
        job.on_finish = on_finish
        return job

    def _asked(self, items: Iterable[object], options: Options, caller: Caller) -> Iterator[Job]:
        """The jobs of ``items``, each made when it is asked for."""
        for item in items:
            payload = dump(item, _DATA, self._max_task_size)
            job = Job(_TASK, payload, self, options)
            job.caller = caller
            yield job

    def _accept(self, job: Job) -> int:
        self._entrance.accepted(job)
        try:
            job.id = next(self._dispatcher.ids)
        except BaseException:  # they may come from another process
            self._entrance.ended([job], [])
            raise
        self._jobs[job.id] = job
        self._dispatcher.accept(job)
        return job.id

    def _accept_all(self, jobs: Sequence[Job]) -> None:
        """Take many at once, which no connection owns, and which ask for the same."""
        accept_all = self._dispatcher.accept_all
        assert accept_all is not None, "the entrance has looked"
        self._entrance.all_accepted(jobs)
        try:
            for job, task_id in zip(jobs, self._dispatcher.ids, strict=False):
                job.id = task_id
        except BaseException:  # as above
            self._entrance.ended(jobs, [])
            raise
        self._jobs.update([(job.id, job) for job in jobs])
        accept_all(jobs)

    def _adopt(self, job: Job) -> None:
        """Take what a task has posted, and a dispatcher elsewhere has accepted."""
        self._entrance.accepted(job)
        self._jobs[job.id] = job
        if self._entrance.is_closed:
            # It was accepted before it could be known there that nothing is any more.
            self._dispatcher.cancel(job, CLOSED)

    async def _run(self, jobs_for: Callable[[Caller], Iterable[Job]]) -> list[Completion]:
        refuse_in_task()
        return await run_jobs(
            jobs_for, self._entrance.post_all, self._dispatcher.cancel, self._patience_for
        )

    def _patience_for(self, posted: Sequence[Job]) -> Patience | None:
        """Whether ``posted`` is all that there is, and one: then its end may come in a moment."""
        is_alone = len(posted) == 1 and len(self._jobs) == 1
        return self._dispatcher.patience if is_alone else None

    async def _wait_changed(self) -> None:
        if self._changed is None:
            self._changed = trio.Event()
            self._entrance.on_heard = self._tell_changed
        await self._changed.wait()

    def _tell_changed(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
            self._entrance.on_heard = None
