"""Exceptions that only say that a connection has ended."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trioserver._net._connection import Connection


logger = logging.getLogger("trioserver.connection")


@contextmanager
def endings_left_out(connection: Connection, name: object) -> Iterator[None]:
    """Leave out of what is raised inside that which only says that ``connection`` has ended.

    ``name`` is what the log calls who has learnt of it.
    """
    try:
        yield
    except BaseException as exc:  # noqa: ASYNC103  # an ending is none of Trio's
        rest = _without_endings(exc, connection)
        if rest is exc:
            raise
        logger.debug("%s ended: %r", name, exc)
        if rest is not None:
            raise rest from None  # noqa: ASYNC104  # the part of the group that is not


def _without_endings(exc: BaseException, connection: Connection) -> BaseException | None:
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
