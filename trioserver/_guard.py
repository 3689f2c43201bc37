"""The one place where an exception of a user's callback ends."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVarTuple

import trio

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Iterator

ArgsT = TypeVarTuple("ArgsT")

# These are not the callback's own: the first two end Trio tasks, the last one the interpreter's
# coroutines.
_PASSING = (trio.Cancelled, KeyboardInterrupt, GeneratorExit)


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
    except trio.Cancelled as exc:  # noqa: ASYNC103  # raised again if anybody waits for it
        if trio.current_effective_deadline() == -math.inf:
            raise
        # It was kept from a scope that has ended, and nobody out there waits for it.
        logger.exception("%s raised", name)
        return exc  # noqa: ASYNC104  # as above
    except _PASSING:
        raise
    except BaseExceptionGroup as group:
        passing, own = _divide(group)
        if own is not None:
            logger.error("%s raised", name, exc_info=own)  # noqa: TRY400  # a part of the group
        if passing is not None:
            raise passing from None
        return own
    except BaseException as exc:  # noqa: ASYNC103  # what must pass has passed above
        logger.exception("%s raised", name)
        return exc  # noqa: ASYNC104  # as above
    return None


def _divide(
    group: BaseExceptionGroup[BaseException],
) -> tuple[BaseExceptionGroup[BaseException] | None, BaseExceptionGroup[BaseException] | None]:
    """What passes of ``group``, and what is the callback's own.

    To split a group calls its ``derive``, which is the app's if its class is, and may fail.
    """
    passing = [exc for exc in _leaves(group) if isinstance(exc, _PASSING)]
    if not passing:
        return None, group
    try:
        return group.split(_PASSING)
    except Exception:  # noqa: BLE001  # whatever `derive` raises
        return BaseExceptionGroup("part of a group that cannot be split", passing), group


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _leaves(exc)
        else:
            yield exc
