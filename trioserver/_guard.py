"""The one place where an exception of a user's callback ends."""

from __future__ import annotations

import math
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVarTuple

import trio

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Iterator

ArgsT = TypeVarTuple("ArgsT")

signals_are_received: ContextVar[bool] = ContextVar("signals_are_received", default=False)
"""Whether a Ctrl-C comes as a signal to whoever runs this, and not as an exception to anybody."""


async def contained(
    logger: logging.Logger,
    name: object,
    async_fn: Callable[[*ArgsT], Awaitable[object]],
    *args: *ArgsT,
) -> BaseException | None:
    """Call ``async_fn(*args)`` and log whatever it raises, also ``SystemExit`` or a group.

    ``name`` is what the log calls it; it becomes text only then.

    Cancellation passes, and so does the part of a group that is one.

    Returns:
      What it raised, None if it returned.
    """
    try:
        await async_fn(*args)
    except BaseException as exc:  # noqa: ASYNC103, BLE001  # what must pass is raised again
        return contain(logger, name, exc)  # noqa: ASYNC104  # as above
    return None


def contain(logger: logging.Logger, name: object, exc: BaseException) -> BaseException:
    """Log ``exc``, which is being handled, and raise again what of it must pass: see `contained`.

    Returns:
      What was logged.
    """
    if isinstance(exc, BaseExceptionGroup):
        passing, own = _divide(exc)
        if own is not None:
            logger.error("%s raised", name, exc_info=own)
        if passing is not None:
            raise passing from None
        assert own is not None, "a group is not empty"
        return own
    if _passes(exc):
        raise exc
    logger.error("%s raised", name, exc_info=exc)
    return exc


def _passes(exc: BaseException) -> bool:
    """Whether ``exc`` is not the callback's own.

    A `trio.Cancelled` is its own if it was kept from a scope that has ended: nobody out there waits
    for it. A `GeneratorExit` is, unless the interpreter closes this very coroutine. A
    `KeyboardInterrupt` is where signals are received, and may be a Ctrl-C elsewhere.
    """
    if isinstance(exc, trio.Cancelled):
        return trio.current_effective_deadline() == -math.inf
    if isinstance(exc, GeneratorExit):
        return not trio.lowlevel.in_trio_task()
    return isinstance(exc, KeyboardInterrupt) and not signals_are_received.get()


def _divide(
    group: BaseExceptionGroup[BaseException],
) -> tuple[BaseExceptionGroup[BaseException] | None, BaseExceptionGroup[BaseException] | None]:
    """What passes of ``group``, and what is the callback's own.

    To split a group calls its ``derive``, which is the app's if its class is, and may fail.
    """
    passing = [exc for exc in _leaves(group) if _passes(exc)]
    if not passing:
        return None, group
    try:
        return group.split(lambda exc: any(exc is one for one in passing))
    except Exception:  # noqa: BLE001  # whatever `derive` raises
        return BaseExceptionGroup("part of a group that cannot be split", passing), group


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _leaves(exc)
        else:
            yield exc
