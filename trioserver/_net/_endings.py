"""Exceptions that only say that a connection has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trioserver._net._connection import Connection


def without_endings(exc: BaseException, connection: Connection) -> BaseException | None:
    """What is left of ``exc`` without that which only says that ``connection`` has ended.

    A callback, and what it has started, learns from these that its client has left or broken the
    framing. They are no failure of its own, alone or in the group that several Trio tasks raise.
    """
    framing_error = connection._inbox.framing_error
    is_over = connection.is_closed or connection.is_broken

    def is_ending(exc: BaseException) -> bool:
        if is_over and isinstance(exc, (trio.BrokenResourceError, trio.ClosedResourceError)):
            return True
        return framing_error is not None and exc is framing_error

    if isinstance(exc, BaseExceptionGroup):
        return exc.split(is_ending)[1]
    return None if is_ending(exc) else exc
