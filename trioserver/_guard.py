"""The one place that decides what an app's exception may cost.

Rules:

1. `trio.Cancelled`, `KeyboardInterrupt` and `GeneratorExit` are no failures of the app: they pass,
   also out of a group with others.
2. All else that app code raises stops here, `SystemExit` and exception groups too. It is logged
   once, with its traceback, and costs what the caller decides: a connection, a completion.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVarTuple

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ArgsT = TypeVarTuple("ArgsT")

_PASSING = (trio.Cancelled, KeyboardInterrupt, GeneratorExit)


async def contained(
    area: str, what: str, async_fn: Callable[[*ArgsT], Awaitable[object]], *args: *ArgsT
) -> BaseException | None:
    """Run ``async_fn(*args)``; what it raises is logged and goes no further.

    Args:
      area: Whose log it is: the part of the logger's name after ``trioserver.``.
      what: What runs, for the log line.
      async_fn: What to run.
      *args: Its arguments.

    Returns:
      What it raised, None if it did not.

    Raises:
      trio.Cancelled: if it was cancelled; `KeyboardInterrupt` and `GeneratorExit` pass as well.
    """
    try:
        await async_fn(*args)
    except BaseException as exc:  # noqa: BLE001  # what must pass is raised again below
        passing, failure = split(exc)
        if failure is not None:
            log_failure(area, what, failure)
        if passing is not None:
            # A part of a group is raised without the failures that are now logged.
            raise passing from None
        return failure
    return None


def split(exc: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Part an exception into what must pass and what is the app's failure."""
    if isinstance(exc, BaseExceptionGroup):
        return exc.split(_PASSING)
    return (exc, None) if isinstance(exc, _PASSING) else (None, exc)


def log_failure(area: str, what: str, failure: BaseException) -> None:
    """Log that ``what`` raised ``failure``, with the traceback."""
    logger = logging.getLogger(f"trioserver.{area}")
    logger.error("%s", describe(what, failure), exc_info=failure)


def describe(what: str, failure: BaseException) -> str:
    """Say in a few words what happened: the last line of the traceback says the rest."""
    return f"{what} raised {type(failure).__name__}"
