"""The way into the queue: what bounds it, who waits for room, and what every connection has posted.

Rules:

1. Posts wait while the queue is full, and also while completions pile up in front of a slow
   ``on_finish``: else those would grow without bound.
2. An ``on_finish`` (or ``on_progress``) that posts waits for the queue alone, which workers empty
   whatever it does; so it may wait, and nothing deadlocks.
3. What tasks post never waits: all workers could be waiting.
4. A connection at its own limit waits by itself, and does not stand in the line of all.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final

import trio

from trioserver._cancelling import is_cancelled
from trioserver._tasks._accounts import Accounts
from trioserver._tasks._admission import CLOSED, Admission
from trioserver._tasks._finishing import is_in_on_finish
from trioserver._tasks._run_times import AHEAD_BYTES
from trioserver._tasks._wire import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from trioserver._pacing import Pacer
    from trioserver._settings import Settings
    from trioserver._tasks._job import Job, Owner
    from trioserver._tasks._pool_dispatcher import PoolDispatcher

_MOST_TOGETHER: Final = 64
"""Jobs that come in together at the most; more would but keep workers waiting."""


class Entrance:
    """Lets jobs in, in their order, and counts those that are inside.

    Args:
      dispatcher: Knows how many wait.
      accept: Takes a job in; calls `accepted` on its way, and returns the job's id.
      accept_all: Takes jobs in, which have the same options and no owner; calls `all_accepted`.
      settings: The bounds.
      pacer: Paces posts.
    """

    def __init__(
        self,
        dispatcher: PoolDispatcher,
        accept: Callable[[Job], int],
        accept_all: Callable[[Sequence[Job]], None],
        settings: Settings,
        pacer: Pacer,
    ) -> None:
        self._dispatcher = dispatcher
        self._accept = accept
        self._accept_all = accept_all
        self._max_tasks = settings.max_queued_tasks
        self._max_bytes = settings.max_queued_bytes
        self._pacer = pacer
        self._tell_unheard = dispatcher.has_unheard
        self.on_heard: Callable[[], None] | None = None
        """Called after `heard`, while somebody waits for that."""
        # Bytes of the data of jobs that have not ended.
        self._bytes = 0
        self.unheard = 0
        """Ends of which ``on_finish`` has not heard yet."""
        self._unheard_bytes = 0
        self._accounts = Accounts(settings.max_tasks_per_connection)
        self.is_closed = False
        """Whether nobody is let in any more."""
        self._for_on_finish = Admission(self._has_room_in_queue, accept)
        self._for_others = Admission(self._has_room, accept)
        dispatcher.on_room(self.call)

    # Coming in

    async def post(self, job: Job) -> int:
        """Let ``job`` in when there is room: its id.

        Raises:
          trio.ClosedResourceError: after `close`, or if its connection is closed.
        """
        pacer = self._pacer
        if perf_counter() >= pacer.yield_at or is_cancelled():  # `is_due`, without the call
            await pacer.checkpoint()
        if job.stream is not None:
            return await self._post_of(job.stream, job)
        admission = self._for_on_finish if is_in_on_finish() else self._for_others
        try:
            return admission.post_nowait(job)
        except trio.WouldBlock:
            return await self._post_in_turn(admission, job)

    async def post_all(self, jobs: Iterable[Job], posted: list[Job]) -> None:
        """Let ``jobs`` in, several together as far as there is room.

        Args:
          jobs: In their order; they have the same options, and no connection owns them.
          posted: Gets those that are in, as soon as they are.

        Raises:
          trio.ClosedResourceError: after `close`.
        """
        pacer = self._pacer
        most = 1 if self._dispatcher.accept_all is None else _MOST_TOGETHER
        await pacer.checkpoint()
        # What comes in together costs a fraction of what it costs one by one.
        together: list[Job] = []
        size = 0
        for job in jobs:
            together.append(job)
            size += job.size
            if (
                len(together) == most
                or size >= AHEAD_BYTES
                or perf_counter() >= pacer.yield_at  # as above
            ):
                await self._post_together(together, posted)
                size = 0
                if pacer.is_due():
                    await pacer.give_turn()
        await self._post_together(together, posted)

    def post_nowait(self, job: Job) -> int:
        """Let ``job`` in if that needs no waiting: its id.

        Raises:
          trio.WouldBlock: if it does.
          trio.ClosedResourceError: as `post`.
        """
        if job.stream is not None:
            self._accounts.enter_nowait(job.stream, in_on_finish=is_in_on_finish())
        try:
            return self._admission().post_nowait(job)
        except (trio.WouldBlock, trio.ClosedResourceError):
            if job.stream is not None:
                self._accounts.given_up(job.stream)
            raise

    def post_of_task(self, job: Job) -> tuple[Answer, int, str]:
        """Let in what a task posts, if there is room now (`Sink.job_posts`)."""
        if self.is_closed:
            return Answer.CLOSED, 0, CLOSED
        if self._has_room(job):
            return Answer.ACCEPTED, self._accept(job), ""
        return Answer.FULL, 0, self._why_there_is_no_room()

    def call(self) -> None:
        """Let in those who wait, as far as there is room."""
        for admission in (self._for_on_finish, self._for_others):
            if admission.line:
                admission.call()
        if self._for_on_finish.line or self._for_others.line:
            self._dispatcher.want_room()

    def close(self) -> None:
        """Let nobody in from now on."""
        self.is_closed = True
        self._accounts.close()
        self._for_on_finish.close()
        self._for_others.close()

    # What becomes of those inside

    def accepted(self, job: Job) -> None:
        """``job`` comes in.

        Raises:
          trio.ClosedResourceError: if its connection is closed, so that it must not.
        """
        if job.stream is not None:
            if job.stream.is_closed:
                # It closed while the post waited in line; nothing would ever end the task.
                raise trio.ClosedResourceError(
                    "the connection that the task would belong to is closed"
                )
            self._accounts.posted(job.stream, job)
        self._bytes += job.size

    def all_accepted(self, jobs: Sequence[Job]) -> None:
        """``jobs`` come in, which no connection owns."""
        self._bytes += sum([job.size for job in jobs])

    def ended(self, jobs: Iterable[Job], own: Collection[Job]) -> None:
        """``jobs`` have ended, and ``own`` of them wait for an ``on_finish`` (`heard` follows)."""
        size = 0
        for job in jobs:
            size += job.size
            if job.stream is not None:
                self._accounts.ended(job.stream, job)
        self._bytes -= size
        if own:
            self.unheard += len(own)
            self._unheard_bytes += sum([job.size + len(job.body) for job in own])
            if self._tell_unheard is not None:
                self._tell_unheard(self.unheard, self._unheard_bytes)

    def heard(self, job: Job) -> None:
        """Nobody is to hear of ``job`` any more."""
        self.unheard -= 1
        self._unheard_bytes -= job.size + len(job.body)
        if self._tell_unheard is not None:
            self._tell_unheard(self.unheard, self._unheard_bytes)
        if job.stream is not None:
            self._accounts.delivered(job.stream)
        if self._for_on_finish.line or self._for_others.line:
            self.call()
        if self.on_heard is not None:
            self.on_heard()

    def jobs_of(self, stream: Owner) -> list[Job]:
        """What ``stream`` has posted and has not ended, the oldest first."""
        return self._accounts.jobs_of(stream)

    def owes(self, stream: Owner) -> bool:
        """Whether ``stream`` has posted what has not ended, or was not heard of."""
        return stream in self._accounts

    # Inside

    async def _post_of(self, stream: Owner, job: Job) -> int:
        await self._accounts.enter(stream, in_on_finish=is_in_on_finish())
        try:
            admission = self._admission()
            try:
                return admission.post_nowait(job)
            except trio.WouldBlock:
                return await self._post_in_turn(admission, job)
        except BaseException:
            self._accounts.given_up(stream)
            raise

    async def _post_together(self, jobs: list[Job], posted: list[Job]) -> None:
        """Let ``jobs`` in, and move each to ``posted`` when it is."""
        while jobs:
            # Every time: the `on_finish` that began this may have returned.
            admission = self._admission()
            count = 1
            if admission.admits(jobs[0]):
                count = self._room_for(jobs)
                if count == 1:
                    self._accept(jobs[0])
                else:
                    self._accept_all(jobs[:count])
            else:
                await self._post_in_turn(admission, jobs[0])
            posted += jobs[:count]
            del jobs[:count]

    async def _post_in_turn(self, admission: Admission, job: Job) -> int:
        self._dispatcher.want_room()
        return await admission.post_in_turn(job)

    def _admission(self) -> Admission:
        return self._for_on_finish if is_in_on_finish() else self._for_others

    def _has_room(self, job: Job) -> bool:
        if (
            self._for_on_finish.line
            or self.unheard >= self._max_tasks
            or self._unheard_bytes >= self._max_bytes
        ):
            return False
        # The same as below, without the call.
        waiting, elsewhere = self._dispatcher.load()
        held = self._bytes + elsewhere
        return waiting < self._max_tasks and (not held or held + job.size <= self._max_bytes)

    def _has_room_in_queue(self, job: Job) -> bool:
        waiting, elsewhere = self._dispatcher.load()
        # One that is larger than all of it must still have its turn.
        held = self._bytes + elsewhere
        return waiting < self._max_tasks and (not held or held + job.size <= self._max_bytes)

    def _room_for(self, jobs: Sequence[Job]) -> int:
        """How many of ``jobs`` have room together, of which the first has."""
        if len(jobs) == 1:
            return 1
        waiting, elsewhere = self._dispatcher.load()
        jobs = jobs[: self._max_tasks - waiting]
        left = self._max_bytes - self._bytes - elsewhere
        if sum([job.size for job in jobs]) <= left:
            return len(jobs)
        for count, job in enumerate(jobs):
            left -= job.size
            if count and left < 0:
                return count
        return len(jobs)  # a single one, which is larger than all of it

    def _why_there_is_no_room(self) -> str:
        waiting, _ = self._dispatcher.load()
        if waiting >= self._max_tasks or self._for_on_finish.line:
            return f"the queue is full (max_queued_tasks {self._max_tasks})"
        if self.unheard >= self._max_tasks or self._unheard_bytes >= self._max_bytes:
            return f"{self.unheard} completions wait for on_finish"
        return f"the queue is full (max_queued_bytes {self._max_bytes})"
