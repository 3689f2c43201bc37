"""Exceptions without the groups that nurseries of ours have put around them.

That there are nurseries inside an ``open_...`` is nobody's affair: what its body raises leaves as
it was, and a start that fails has one reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVarTuple

import trio

from trioserver._errors import TrioserverError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

ArgsT = TypeVarTuple("ArgsT")


class Body:
    """To be entered around what the user's code does: it knows what that has raised."""

    def __init__(self) -> None:
        self.raised: BaseException | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.raised = exc_value

    def without_groups(self, group: BaseExceptionGroup) -> BaseException:
        """See `without_groups`."""
        return without_groups(group, self.raised)


def without_groups(group: BaseExceptionGroup, raised: BaseException | None = None) -> BaseException:
    """What to raise in place of ``group``, which nurseries of ours have raised.

    Raise it where ``group`` is not handled any more, or it becomes its context.

    Args:
      group: What came out.
      raised: What the user's code inside has raised, if it has.

    Returns:
      ``group`` itself, if more than one thing went wrong.
    """
    found = _leaves(group)
    if raised is not None:
        # By its leaves: a group of the user's own is taken apart and made anew on its way.
        own = set(map(id, _leaves(raised)))
        if all(id(exc) in own or isinstance(exc, trio.Cancelled) for exc in found):
            return raised
    elif len(found) == 1 and isinstance(found[0], TrioserverError):
        return found[0]
    # A Ctrl-C comes wherever the program is just then, be it in a nursery of ours.
    interrupts = [exc for exc in found if isinstance(exc, KeyboardInterrupt)]
    others = [exc for exc in found if not isinstance(exc, KeyboardInterrupt | trio.Cancelled)]
    if not interrupts or others:
        return group
    # What it has cancelled is no news: one traceback is enough.
    interrupts[0].__suppress_context__ = True
    return interrupts[0]


async def run_bare(async_fn: Callable[[*ArgsT], Awaitable[object]], *args: *ArgsT) -> None:
    """Call ``async_fn(*args)``; what it raises is in no group of ours."""
    cause: BaseException
    try:
        await async_fn(*args)
    except BaseExceptionGroup as group:
        cause = without_groups(group)
        if cause is group:
            raise
    else:
        return
    raise cause


def _leaves(exc: BaseException) -> list[BaseException]:
    """The exceptions that ``exc`` is or consists of, none of them a group."""
    if not isinstance(exc, BaseExceptionGroup):
        return [exc]
    return [leaf for part in exc.exceptions for leaf in _leaves(part)]
