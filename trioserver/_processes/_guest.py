"""An event worker's tasks as the one dispatcher of the manager sees them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from trioserver._processes._channel import PARENT, POST_SIZE, Say, pack_end, unpack_post
from trioserver._tasks._admission import CLOSED
from trioserver._tasks._job import Job
from trioserver._tasks._options import Options
from trioserver._tasks._wire import Answer, Kind, WireError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trioserver._processes._channel import Channel
    from trioserver._processes._room import Room
    from trioserver._settings import Settings
    from trioserver._tasks._dispatcher import Dispatcher

logger = logging.getLogger("trioserver.manager")

_MOST_KEPT: Final = 100
"""Different options that are kept unpacked."""


class Desk:
    """The dispatcher and its bounds, as all event workers share them.

    Args:
      dispatcher: Has the tasks run.
      settings: The bounds.
      room: Where the event workers read how much room there is.
      ids: Of tasks, in blocks for event workers and one by one for what tasks post.
    """

    def __init__(
        self, dispatcher: Dispatcher, settings: Settings, room: Room, ids: Iterator[int]
    ) -> None:
        self.dispatcher = dispatcher
        self.settings = settings
        self.room = room
        self.ids = ids
        self.plain = Options(timeout=settings.task_timeout)
        self.held_bytes = 0
        """Bytes of the data of jobs that have not ended."""
        self.is_closed = False
        """Whether tasks may post no more."""
        self._guests: list[Guest] = []
        # Where so few wait, those who want room are told, so that they have some to fill.
        most = settings.max_queued_tasks
        self._low = most - max(most // 8, 1)
        dispatcher.on_room(self.publish)
        self.publish()

    def add(self, guest: Guest) -> None:
        self._guests.append(guest)

    def remove(self, guest: Guest) -> None:
        self._guests.remove(guest)

    def publish(self) -> None:
        """Tell how much room there is, and send what was put for anybody meanwhile."""
        dispatcher = self.dispatcher
        waiting = dispatcher.waiting
        self.room.publish(waiting, dispatcher.idle_places, self.held_bytes, dispatcher.workers)
        for guest in self._guests:
            if guest.wants_room and waiting <= self._low and self._has_bytes():
                guest.tell_room()
            guest.flush()

    def why_full(self, size: int) -> str | None:
        """Why a task of ``size`` bytes cannot come in; None if it can."""
        if self.room.waiting >= self.settings.max_queued_tasks:
            return f"the queue is full (max_queued_tasks {self.settings.max_queued_tasks})"
        held = self.held_bytes
        if held and held + size > self.settings.max_queued_bytes:
            return f"the queue is full (max_queued_bytes {self.settings.max_queued_bytes})"
        return None

    def _has_bytes(self) -> bool:
        return not self.held_bytes or self.held_bytes < self.settings.max_queued_bytes


class Guest:
    """One event worker process at the dispatcher (a `_job.Sink`).

    Args:
      desk: What all share.
      channel: To the process.
      seat: Its place in `Room`.
    """

    def __init__(self, desk: Desk, channel: Channel, seat: int) -> None:
        self._desk = desk
        self._channel = channel
        self._seat = seat
        self.jobs: dict[int, Job] = {}
        """What it has posted and that has not ended."""
        self.wants_room = False
        self.is_gone = False
        """Whether nobody is there to hear."""
        self._options: dict[bytes, tuple[int, bool, Options]] = {}
        # Those that end with their connection; without their number they could not be found.
        self._owned: set[int] = set()
        # What has arrived, and is not published yet.
        self._taken = 0
        self._taken_bytes = 0
        desk.add(self)

    # What the event worker says

    def post(self, task_id: int, body: bytes) -> None:
        """It posts a task; `took_all` must follow.

        Raises:
          WireError: if it cannot have been posted.
        """
        head = body[:POST_SIZE]
        found = self._options.get(head)
        if found is None:
            found = unpack_post(head)
            if len(self._options) < _MOST_KEPT:
                self._options[head] = found
        kind, is_owned, options = found
        if task_id in self.jobs:
            raise WireError
        job = Job(kind, body[POST_SIZE:], self, options)
        job.id = task_id
        if is_owned:
            self._owned.add(task_id)
        self._taken += 1
        self._taken_bytes += len(job.payload)
        self._accept(job)

    def took_all(self) -> None:
        """All posts that came together were taken."""
        if self._taken:
            self._desk.publish()
            self._desk.room.taken(self._seat, self._taken, self._taken_bytes)
            self._taken = self._taken_bytes = 0

    def cancel(self, task_id: int, reason: str) -> None:
        """It wants a task ended, if it has not ended by itself."""
        job = self.jobs.get(task_id)
        if job is not None:
            self._desk.dispatcher.cancel(job, reason)

    def want_room(self) -> None:
        """It has somebody who waits for room."""
        if self._desk.why_full(1) is None:
            self.tell_room()
        else:
            self.wants_room = True

    def tell_room(self) -> None:
        self.wants_room = False
        self._channel.put(Say.ROOM)

    def flush(self) -> None:
        self._channel.flush()

    def leave(self) -> tuple[int, int]:
        """It is dead: how many of its tasks are cancelled, and how many run on unheard."""
        self.is_gone = True
        self._desk.remove(self)
        owned = [self.jobs[task_id] for task_id in self._owned]
        run_on = len(self.jobs) - len(owned)
        for job in reversed(owned):  # the newest first, so that the queue does not move up
            self._desk.dispatcher.cancel(job, "its event worker died")
        return len(owned), run_on

    # What the dispatcher says (`_job.Sink`); it calls `Desk.publish` after all of it

    def job_ended(self, job: Job) -> None:
        del self.jobs[job.id]
        self._owned.discard(job.id)
        self._desk.held_bytes -= len(job.payload)
        if not self.is_gone:
            self._channel.put(Say.ENDED, job.id, pack_end(job), job.body)

    def job_progressed(self, job: Job, body: bytes) -> None:
        if not self.is_gone:
            self._channel.put(Say.PROGRESS, job.id, body=body)

    def job_posts(self, job: Job, payload: bytes) -> tuple[Answer, int, str]:
        """Accept what a task posts; it is heard of where the task that posts it is."""
        desk = self._desk
        if desk.is_closed:
            return Answer.CLOSED, 0, CLOSED
        reason = desk.why_full(len(payload))
        if reason is None and not self.is_gone:
            unheard = desk.room.unheard(self._seat)
            if unheard >= desk.settings.max_queued_tasks:
                reason = f"{unheard} completions wait for on_finish"
        if reason is not None:
            return Answer.FULL, 0, reason
        new = Job(Kind.TASK, payload, self, desk.plain)
        new.id = next(desk.ids)
        if not self.is_gone:
            self._channel.put(Say.POSTED, new.id, PARENT.pack(job.id), payload)
        self._accept(new)
        return Answer.ACCEPTED, new.id, ""

    # Inside

    def _accept(self, job: Job) -> None:
        self.jobs[job.id] = job
        self._desk.held_bytes += len(job.payload)
        self._desk.dispatcher.accept(job)
