"""A gate in front of the queue: who may post now, and who waits, first come first served.

Whoever opens the gate posts for those in line, in their order, and then wakes them. If it woke them
to post by themselves, Trio would run them in any order, and others could come in between.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioserver._tasks._job import Job

CLOSED: Final = "no more tasks are accepted: the server is stopping"


class Admission:
    """Lets posts through while there is room, and makes others wait in line.

    Args:
      has_room: Whether a job fits now.
      accept: Takes a job that does, and returns its id; less room must be left at once.
    """

    def __init__(self, has_room: Callable[[Job], bool], accept: Callable[[Job], int]) -> None:
        self._has_room = has_room
        self._accept = accept
        self.line: deque[_Place] = deque()
        """Who waits."""
        self._is_closed = False

    def admits(self, job: Job) -> bool:
        """Whether ``job`` may be posted at once: there is room, and nobody is in line.

        Raises:
          trio.ClosedResourceError: after `close`.
        """
        if self._is_closed:
            raise trio.ClosedResourceError(CLOSED)
        return not self.line and self._has_room(job)

    def post_nowait(self, job: Job) -> int:
        """Post ``job`` if that can be done at once.

        Returns:
          Its id.

        Raises:
          trio.WouldBlock: if there is no room, or someone is in line.
          trio.ClosedResourceError: after `close`.
        """
        if self._is_closed:  # as `admits`, without the call
            raise trio.ClosedResourceError(CLOSED)
        if self.line or not self._has_room(job):
            raise trio.WouldBlock
        return self._accept(job)

    async def post_in_turn(self, job: Job) -> int:
        """Wait in line, and have ``job`` posted in turn, unless this is cancelled before.

        Returns:
          Its id.

        Raises:
          trio.ClosedResourceError: if `close` comes first, or if accepting it raises this.
        """
        place = _Place(job, trio.lowlevel.current_task())
        self.line.append(place)

        def leave(_raise_cancel: object) -> trio.lowlevel.Abort:
            # At the cancellation itself: the gate may open before the task runs again.
            self.line.remove(place)
            self.call()  # whoever is behind a large one may fit
            return trio.lowlevel.Abort.SUCCEEDED

        posted: int = await trio.lowlevel.wait_task_rescheduled(leave)
        return posted

    def call(self) -> None:
        """Post for those in line as far as there is room; for whenever there may be more."""
        while self.line and self._has_room(self.line[0].job):
            place = self.line.popleft()
            trio.lowlevel.reschedule(place.task, outcome.capture(self._accept, place.job))

    def close(self) -> None:
        """Refuse everybody from now on, those in line too."""
        self._is_closed = True
        while self.line:
            refusal = outcome.Error(trio.ClosedResourceError(CLOSED))
            trio.lowlevel.reschedule(self.line.popleft().task, refusal)


class _Place:
    """One place in the line."""

    __slots__ = ("job", "task")

    def __init__(self, job: Job, task: trio.lowlevel.Task) -> None:
        self.job = job
        self.task = task
