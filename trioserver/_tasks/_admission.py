"""The gate in front of the queue: who may post now, and who waits, first come first served."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Admission:
    """Lets posts through while there is room, and makes others wait in line.

    Args:
      room: How many more fit now; posting one must make it one less at once.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self._room = room
        self._line: deque[trio.Event] = deque()
        self.called = 0
        """Those who were told that it is their turn, and have not posted yet."""
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._line) + self.called

    def enter_nowait(self) -> None:
        """Return if the caller may post at once.

        Raises:
          trio.WouldBlock: if there is no room, or someone is in line.
          trio.ClosedResourceError: after `close`.
        """
        self._check_open()
        if self._line or self._room() <= self.called:
            raise trio.WouldBlock

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait in line; the caller may post inside.

        Raises:
          trio.ClosedResourceError: if `close` comes first.
        """
        mine = trio.Event()
        self._line.append(mine)
        try:
            await mine.wait()
            self._check_open()
            yield
        finally:
            if mine.is_set():
                self.called -= 1
            else:
                self._line.remove(mine)
            self.call()

    def call(self) -> None:
        """Call as many out of the line as there is room for; for whenever there may be more."""
        while self._line and (self._is_closed or self._room() > self.called):
            self.called += 1
            self._line.popleft().set()

    def close(self) -> None:
        """Refuse everybody from now on, those in line too."""
        self._is_closed = True
        self.call()

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("no more tasks are accepted: the server is stopping")
