"""An event worker's tasks as the one dispatcher of the manager sees them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from trioserver._processes._channel import PARENT, POST_SIZE, Say, pack_end, unpack_post
from trioserver._tasks._admission import CLOSED
from trioserver._tasks._job import Job
from trioserver._tasks._options import Options
from trioserver._tasks._wire import Answer, Kind, WireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trioserver._processes._channel import Channel, Record
    from trioserver._processes._room import Room
    from trioserver._settings import Settings
    from trioserver._tasks._dispatcher import Dispatcher

# Plain numbers are compared faster.
_POST: Final = int(Say.POST)
_CANCEL: Final = int(Say.CANCEL)
_WANT_ROOM: Final = int(Say.WANT_ROOM)
_TASK: Final = int(Kind.TASK)
CANCELLED: Final = "server.cancel was called"
"""Why a task ends that somebody else cancels than who has posted it."""
_MOST_UNKNOWN: Final = 1000
"""Ends that are sent before it is looked at which of them were heard."""
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
        self.better_at = 0
        """The version of the newest state of `Room` that had more room than the one before it."""
        self.most_workers = 0
        """How many task workers there were at the most."""
        self._state = (0, 0, 0)
        self._guests: list[Guest] = []
        # Those that are dead, while jobs of theirs run on.
        self._gone: list[Guest] = []
        dispatcher.on_room(self.publish)
        self.publish()

    def add(self, guest: Guest) -> None:
        self._guests.append(guest)

    def remove(self, guest: Guest) -> None:
        self._guests.remove(guest)
        self._gone = [*(other for other in self._gone if other.jobs), guest]

    def cancel_abandoned(self, task_id: int, reason: str) -> bool:
        """End a task that has nobody to hear of it; False if there is no such task."""
        for guest in self._gone:
            if task_id in guest.jobs:
                guest.cancel(task_id, reason)
                return True
        return False

    def publish(self) -> None:
        """Tell how much room there is, and send what was put for anybody meanwhile."""
        dispatcher, room = self.dispatcher, self.room
        waiting, free, held = dispatcher.waiting, dispatcher.idle_places, self.held_bytes
        self.most_workers = max(self.most_workers, dispatcher.workers)
        version = room.publish(waiting, free, held, dispatcher.workers)
        # Fewer wait; or fewer than one who has counted what was on its way could believe.
        state = waiting, waiting - free - room.taken_tasks, held - room.taken_bytes
        before, self._state = self._state, state
        if state[0] < before[0] or state[1] < before[1] or state[2] < before[2]:
            self.better_at = version
        for guest in self._guests:
            if guest.wants_room and guest.has_seen < self.better_at and self.has_room():
                guest.tell_room()
            guest.flush()

    def has_room(self) -> bool:
        """Whether anything at all can come in."""
        return self.why_full(1) is None

    def why_full(self, size: int) -> str | None:
        """Why a task of ``size`` bytes cannot come in; None if it can."""
        look = self.room.look()
        if look.waiting >= self.settings.max_queued_tasks:
            return f"the queue is full (max_queued_tasks {self.settings.max_queued_tasks})"
        held = look.held_bytes
        if held and held + size > self.settings.max_queued_bytes:
            return f"the queue is full (max_queued_bytes {self.settings.max_queued_bytes})"
        return None


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
        self.has_seen = 0
        """The version of the state of `Room` in which it has found none."""
        self.is_gone = False
        """Whether nobody is there to hear."""
        self._options: dict[bytes, tuple[int, bool, Options]] = {}
        # Those that end with their connection, or with the caller who waits for them.
        self._owned: set[int] = set()
        # Completions that it was sent, and how those ended that it may not have heard of.
        self._ends = 0
        self._unheard: deque[int] = deque()
        self._look_at = _MOST_UNKNOWN
        # What has arrived, and is not published yet.
        self._taken = 0
        self._taken_bytes = 0
        # The newest values of tasks, for when it has read what it was sent before.
        self._values: dict[int, bytes] = {}
        desk.add(self)

    # What the event worker says

    def hear(self, records: list[Record]) -> list[Record]:
        """Do what ``records`` say of tasks; those that say something else.

        Raises:
          WireError: if one makes no sense; those before it were heard.
        """
        others: list[Record] = []
        try:
            for record in records:
                kind, number, body = record
                if kind == _POST:
                    self._post(number, body)
                elif kind == _CANCEL:
                    self.cancel(number, body.decode(errors="replace"))
                elif kind == _WANT_ROOM:
                    self._want_room(number)
                else:
                    others.append(record)
        finally:
            if self._taken:
                self._desk.room.taken(self._seat, self._taken, self._taken_bytes)
                self._taken = self._taken_bytes = 0
                self._desk.publish()
            self.flush()
        return others

    def cancel(self, task_id: int, reason: str) -> None:
        """End a task of its, if that has not ended by itself."""
        job = self.jobs.get(task_id)
        if job is not None:
            self._desk.dispatcher.cancel(job, reason)

    def _post(self, task_id: int, body: bytes) -> None:
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
        if (options.task_worker or 0) >= self._desk.most_workers:
            raise WireError  # one that is gone since is the dispatcher's affair
        if is_owned:
            self._owned.add(task_id)
        self._taken += 1
        self._taken_bytes += job.size
        self._accept(job)

    def _want_room(self, has_seen: int) -> None:
        """It has somebody who waits for room, and has found none in the state of that version."""
        self.has_seen = has_seen
        # Without the version two sides that see different things would go on telling each other.
        self.wants_room = True
        if has_seen < self._desk.better_at and self._desk.has_room():
            self.tell_room()

    def tell_room(self) -> None:
        """There may be what it wants."""
        self.wants_room = False
        self._channel.put(Say.ROOM)

    def flush(self) -> None:
        """Send what was put."""
        self._channel.flush()

    def leave(self) -> int:
        """It is dead: how many of its tasks nobody will hear of.

        Those are what it has posted and that has not arrived, what has not ended, and what has
        ended and was not heard of.
        """
        self.is_gone = True
        self._values.clear()
        desk = self._desk
        desk.remove(self)
        self._forget_heard()
        unarrived = desk.room.close_seat(self._seat)
        abandoned = unarrived + len(self.jobs) + len(self._unheard)
        desk.dispatcher.abandon(unarrived, self._unheard)
        # The newest first, so that the queue does not move up.
        for job in reversed([self.jobs[task_id] for task_id in self._owned]):
            desk.dispatcher.cancel(job, "its event worker died")
        desk.publish()
        return abandoned

    def _forget_heard(self) -> None:
        """Keep the ends of which nothing is known yet; that they are the newest ones is near it."""
        unheard = self._ends - self._desk.room.heard_ends(self._seat)
        while len(self._unheard) > unheard:
            self._unheard.popleft()
        self._look_at = max(2 * len(self._unheard), _MOST_UNKNOWN)

    # What the dispatcher says (`_job.Sink`); it calls `Desk.publish` after all of it

    def jobs_ended(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._job_ended(job)

    def _job_ended(self, job: Job) -> None:
        del self.jobs[job.id]
        self._owned.discard(job.id)
        self._desk.held_bytes -= job.size
        if self.is_gone:
            return
        if self._values:
            value = self._values.pop(job.id, None)
            if value is not None:
                self._channel.put(Say.PROGRESS, job.id, body=value)
        self._channel.put(Say.ENDED, job.id, pack_end(job), job.body)
        assert job.status is not None, "it has ended"
        self._ends += 1
        self._unheard.append(job.status)
        if len(self._unheard) > self._look_at:
            self._forget_heard()

    def job_progressed(self, job: Job, body: bytes) -> None:
        if self.is_gone:
            return
        if not self._channel.unsent:
            self._channel.put(Say.PROGRESS, job.id, body=body)
            return
        # It does not read: only the newest values are worth the memory.
        if not self._values:
            self._channel.when_sent(self._tell_values)
        self._values[job.id] = body

    def job_posts(self, job: Job, payload: bytes) -> tuple[Answer, int, str]:
        """Accept what a task posts; it is heard of where the task that posts it is."""
        desk = self._desk
        if desk.is_closed:
            return Answer.CLOSED, 0, CLOSED
        reason = desk.why_full(len(payload))
        if reason is None and not self.is_gone:
            reason = self._why_too_much_is_unheard()
        if reason is not None:
            return Answer.FULL, 0, reason
        new = Job(_TASK, payload, self, desk.plain)
        new.id = next(desk.ids)
        if not self.is_gone:
            self._channel.put(Say.POSTED, new.id, PARENT.pack(job.id), payload)
        self._accept(new)
        return Answer.ACCEPTED, new.id, ""

    # Inside

    def _why_too_much_is_unheard(self) -> str | None:
        settings = self._desk.settings
        unheard, unheard_bytes = self._desk.room.unheard(self._seat)
        unheard_bytes += self._channel.unsent
        if unheard < settings.max_queued_tasks and unheard_bytes < settings.max_queued_bytes:
            return None
        return f"{unheard} completions wait for on_finish"

    def _tell_values(self) -> None:
        values, self._values = self._values, {}
        if not self.is_gone:
            for task_id, value in values.items():
                self._channel.put(Say.PROGRESS, task_id, body=value)
            self.flush()

    def _accept(self, job: Job) -> None:
        self.jobs[job.id] = job
        self._desk.held_bytes += job.size
        self._desk.dispatcher.accept(job)
