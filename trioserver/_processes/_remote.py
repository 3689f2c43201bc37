"""The dispatcher as the task pool of an event worker has it: at the other end of a channel.

What is posted is on its way at once, as far as the pool is concerned: the manager takes everything,
since it is asked only while `_room` has room. Posts of one turn of Trio's scheduler travel together.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from trioserver._processes._channel import PARENT, Say, pack_post, take_end
from trioserver._tasks._job import Job
from trioserver._tasks._wire import Kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from trioserver._processes._channel import Channel
    from trioserver._processes._room import Room
    from trioserver._tasks._statistics import TaskStatistics


class RemoteDispatcher:
    """Posts jobs to the manager, and hears how they end (`_entrance.PoolDispatcher`).

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
        self._listeners: list[Callable[[], None]] = []
        self._adopt: Callable[[Job], None]
        self._is_wanting = False
        # The task that flushes, while it sleeps.
        self._flusher: trio.lowlevel.Task | None = None

    # What a pool calls

    @property
    def workers(self) -> int:
        return self._room.task_workers

    @property
    def waiting(self) -> int:
        return self._room.waiting

    @property
    def bytes_elsewhere(self) -> int:
        return max(self._room.held_bytes - self._bytes, 0)

    def accept(self, job: Job) -> None:
        size = len(job.payload)
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
            self._channel.put(Say.WANT_ROOM)
            self._flush_soon()

    def statistics(self) -> TaskStatistics:
        return self._statistics()

    # What the manager says

    def has_ended(self, task_id: int, body: bytes) -> None:
        """A job is over."""
        job = self._jobs.pop(task_id)
        self._bytes -= len(job.payload)
        take_end(job, body)
        job.sink.job_ended(job)

    def has_progressed(self, task_id: int, body: bytes) -> None:
        """A job has told a value."""
        job = self._jobs[task_id]
        job.sink.job_progressed(job, body)

    def has_posted(self, task_id: int, body: bytes) -> None:
        """A job has posted another one, which the manager has accepted."""
        (parent_id,) = PARENT.unpack_from(body)
        parent = self._jobs[parent_id]
        job = Job(Kind.TASK, body[PARENT.size :], parent.sink)
        job.id = task_id
        self._jobs[task_id] = job
        self._bytes += len(job.payload)
        self._adopt(job)

    def has_room(self) -> None:
        """There is some, as was wanted."""
        self._is_wanting = False

    def changed(self) -> None:
        """All that came together was told."""
        for listener in self._listeners:
            listener()

    # Inside

    def _flush_soon(self) -> None:
        if self._flusher is not None:
            trio.lowlevel.reschedule(self._flusher)
            self._flusher = None

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
    """Have what is put sent, while inside and at the end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dispatcher.flush_when_asked)
        yield dispatcher
        nursery.cancel_scope.cancel()
