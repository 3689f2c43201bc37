"""The gate in front of the queue: who may post now, and who waits, first come first served.

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

_CLOSED: Final = "no more tasks are accepted: the server is stopping"


class Admission:
    """Lets posts through while there is room, and makes others wait in line.

    Args:
      room: How many more fit now; posting one must make it one less at once.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self._room = room
        self._line: deque[_Place] = deque()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._line)

    def enter_nowait(self) -> None:
        """Return if the caller may post at once.

        Raises:
          trio.WouldBlock: if there is no room, or someone is in line.
          trio.ClosedResourceError: after `close`.
        """
        if self._is_closed:
            raise trio.ClosedResourceError(_CLOSED)
        if self._line or self._room() <= 0:
            raise trio.WouldBlock

    async def post_in_turn(self, post: Callable[[], int]) -> int:
        """Wait in line; ``post`` is called when it is its turn, unless this is cancelled before.

        Returns:
          What ``post`` returned.

        Raises:
          trio.ClosedResourceError: if `close` comes first, or if ``post`` raises it.
        """
        place = _Place(post, trio.lowlevel.current_task())
        self._line.append(place)

        def leave(_raise_cancel: object) -> trio.lowlevel.Abort:
            # At the cancellation itself: the gate may open before the task runs again.
            self._line.remove(place)
            return trio.lowlevel.Abort.SUCCEEDED

        posted: int = await trio.lowlevel.wait_task_rescheduled(leave)
        return posted

    def call(self) -> None:
        """Post for those in line as far as there is room; for whenever there may be more."""
        while self._line and self._room() > 0:
            self._line.popleft().take_turn()

    def close(self) -> None:
        """Refuse everybody from now on, those in line too."""
        self._is_closed = True
        while self._line:
            self._line.popleft().refuse(trio.ClosedResourceError(_CLOSED))


class _Place:
    """One place in the line."""

    __slots__ = ("_post", "_task")

    def __init__(self, post: Callable[[], int], task: trio.lowlevel.Task) -> None:
        self._post = post
        self._task = task

    def take_turn(self) -> None:
        trio.lowlevel.reschedule(self._task, outcome.capture(self._post))

    def refuse(self, refusal: trio.ClosedResourceError) -> None:
        trio.lowlevel.reschedule(self._task, outcome.Error(refusal))
