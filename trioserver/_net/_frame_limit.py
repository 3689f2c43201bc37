"""After how many frames an event worker has done enough (``max_request``)."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final, final

from trioserver._net._inbox import Inbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioserver._net._transport import Transport
    from trioserver._pacing import Pacer

_SPREAD: Final = 4
"""Up to one part in so many is left out by chance."""


@final
class FrameLimit:
    """Counts the frames of all connections.

    Args:
      max_request: How many there may be; up to a quarter fewer are taken, so that not all event
        workers leave together.
      on_reached: Called once, with the last of them.
    """

    def __init__(
        self, max_request: int, on_reached: Callable[[], object], random: Random | None = None
    ) -> None:
        random = random or Random()  # noqa: S311  # of no secret
        self._left = max_request - random.randint(0, max_request // _SPREAD)
        self._on_reached = on_reached

    def count(self) -> None:
        """One more."""
        self._left -= 1
        if self._left == 0:
            self._on_reached()


class CountedInbox(Inbox):
    """An inbox whose frames are counted; one of its own, so that others pay nothing."""

    __slots__ = ("_limit",)
    is_counted = True

    def __init__(self, transport: Transport, pacer: Pacer, limit: FrameLimit) -> None:
        super().__init__(transport, pacer)
        self._limit = limit

    def count_frame(self) -> None:
        """As `Inbox.count_frame`."""
        self._limit.count()

    def take_frame(self) -> bytes | None:
        """As `Inbox.take_frame`."""
        frame = super().take_frame()
        if frame is not None:
            self._limit.count()
        return frame

    def receive_frame_nowait(self) -> bytes | None:
        """As `Inbox.receive_frame_nowait`."""
        frame = super().receive_frame_nowait()
        if frame is not None:
            self._limit.count()
        return frame

    async def receive_frame(self) -> bytes:
        """As `Inbox.receive_frame`."""
        frame = await super().receive_frame()
        self._limit.count()
        return frame
