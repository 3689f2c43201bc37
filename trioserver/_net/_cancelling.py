"""What only Trio's insides tell about the cancel scopes of a Trio task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio.lowlevel import current_task

if TYPE_CHECKING:
    from trio.lowlevel import Task


def is_cancelled() -> bool:
    """Whether the next checkpoint here raises `trio.Cancelled`.

    `trio.lowlevel.checkpoint_if_cancelled` looks there, too, but by a coroutine: where sixteen
    replies leave together, that was an eighth of the time of each.
    """
    return current_task()._cancel_status.effectively_cancelled


def innermost_scope(task: Task) -> object:
    """Stands for the innermost scope that ``task`` is in; to be compared."""
    return task._cancel_status
