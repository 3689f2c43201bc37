"""The dispatcher as the task pool of an event worker has it: at the other end of a channel.

What is posted is on its way at once, as far as the pool is concerned: the manager takes all of it,
since it is asked only while `_room` has room. Posts of one turn of the scheduler travel together.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from trioserver._processes._channel import PARENT, Say, pack_post, take_end
from trioserver._tasks._job import Job
from trioserver._tasks._wire import Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from trioserver._processes._channel import Channel, Record
    from trioserver._processes._room import Room
    from trioserver._tasks._statistics import TaskStatistics

# Plain numbers: one is compared often, the other travels.
_ENDED: Final = int(Say.ENDED)
_TASK: Final = int(Kind.TASK)


class RemoteDispatcher:
    """Posts jobs to the manager, and hears how they end (a `PoolDispatcher`).

    Args:
      channel: To the manager.
      room: What all processes share.
      seat: This one's place there.
      ids: Ids for jobs, from the manager.
      statistics: Asks for those of all tasks.
    """

    def __init__(
        self,
        channel: Channel,
        room: Room,
        seat: int,
        ids: Iterator[int],
        statistics: Callable[[], TaskStatistics],
    ) -> None:
        self._channel = channel
        self._room = room
        self._seat = seat
        self.ids = ids
        self._statistics = statistics
        self._jobs: dict[int, Job] = {}
        # Bytes of their data.
        self._bytes = 0
        # Completions that have arrived.
        self._ends = 0
        self._listeners: list[Callable[[], None]] = []
        self._adopt: Callable[[Job], None]
        # The version of what was seen when the pool last asked how many wait.
        self._seen = 0
        self._is_wanting = False
        # The task that flushes, while it sleeps.
        self._flusher: trio.lowlevel.Task | None = None

    # What a pool calls

    accept_all: None = None
    """Others may post between a look at the room and a post."""
    patience: None = None
    """What goes through a manager takes longer than it pays to stay awake for."""

    @property
    def workers(self) -> int:
        return self._room.task_workers

    def load(self) -> tuple[int, int]:
        self._seen, waiting, held = self._room.look_fast()
        return waiting, max(held - self._bytes, 0)

    def accept(self, job: Job) -> None:
        size = job.size
        self._jobs[job.id] = job
        self._bytes += size
        self._room.posted(self._seat, size)
        self._channel.put(Say.POST, job.id, pack_post(job), job.payload)
        self._flush_soon()

    def cancel(self, job: Job, reason: str) -> None:
        if job.status is None:
            self._channel.put(Say.CANCEL, job.id, reason.encode())
            self._flush_soon()

    def on_room(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def on_adopted(self, adopt: Callable[[Job], None]) -> None:
        self._adopt = adopt

    def want_room(self) -> None:
        if not self._is_wanting:
            self._is_wanting = True
            # Whatever gets better after what was seen is told, also if it has done so by now.
            self._channel.put(Say.WANT_ROOM, self._seen)
            self._flush_soon()

    def has_unheard(self, count: int, size: int) -> None:
        self._room.has_unheard(self._seat, count, size)

    def statistics(self) -> TaskStatistics:
        return self._statistics()

    # What the manager says

    def hear(self, records: list[Record]) -> list[Record]:
        """Do what ``records`` say of tasks; those that say something else."""
        others: list[Record] = []
        jobs = self._jobs
        ended: list[Job] = []
        for record in records:
            kind, task_id, body = record
            if kind == _ENDED:
                job = jobs.pop(task_id)
                self._bytes -= job.size
                take_end(job, body)
                ended.append(job)
                continue
            if ended:
                self._have_ended(ended)
                ended = []
            if kind == Say.PROGRESS:
                job = jobs[task_id]
                job.sink.job_progressed(job, body)
            elif kind == Say.POSTED:
                self._has_posted(task_id, body)
            elif kind == Say.ROOM:
                self._is_wanting = False
                # Who waits for something else than room in the queue does not look at it.
                self._seen = self._room.look().version
            else:
                others.append(record)
        if ended:
            self._have_ended(ended)
        for listener in self._listeners:
            listener()
        return others

    # Inside

    def _have_ended(self, jobs: list[Job]) -> None:
        jobs[0].sink.jobs_ended(jobs)  # one pool posts here
        self._ends += len(jobs)
        self._room.has_taken_ends(self._seat, self._ends)

    def _has_posted(self, task_id: int, body: bytes) -> None:
        """A job has posted another one, which the manager has accepted."""
        (parent_id,) = PARENT.unpack_from(body)
        parent = self._jobs[parent_id]
        job = Job(_TASK, body[PARENT.size :], parent.sink)
        job.id = task_id
        self._jobs[task_id] = job
        self._bytes += job.size
        self._adopt(job)

    def _flush_soon(self) -> None:
        if self._flusher is not None:
            trio.lowlevel.reschedule(self._flusher)
            self._flusher = None

    def flush(self) -> None:
        """Send what was put."""
        self._channel.flush()

    async def flush_when_asked(self) -> None:
        """Send, once a turn of the scheduler, what was put meanwhile; until cancelled."""

        def forget(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._flusher = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            self._channel.flush()
            self._flusher = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(forget)


@asynccontextmanager
async def flushing(dispatcher: RemoteDispatcher) -> AsyncIterator[RemoteDispatcher]:
    """Have what is put sent, while inside and at the end, also where the body raises."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dispatcher.flush_when_asked)
        try:
            yield dispatcher
        finally:
            dispatcher.flush()
        nursery.cancel_scope.cancel()
