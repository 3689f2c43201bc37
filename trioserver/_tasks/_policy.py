"""What a dispatcher was told by the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from trioserver._tasks._run_times import MAX_AHEAD

if TYPE_CHECKING:
    from typing import Self

    from trioserver._settings import Settings

GRACE: Final = 0.2
"""Seconds that a cancelled scope has to end its task, before its whole process is killed."""


@attrs.frozen(kw_only=True)
class Policy:
    """The part of the settings that a dispatcher decides by."""

    concurrency: int = 1
    """Jobs that a worker runs at a time."""
    grace: float = 0.0
    """Seconds that a job has to end itself when it is asked to; 0 where none can."""
    max_window: int = MAX_AHEAD
    """Jobs that a worker may hold beside those that it runs."""
    max_request: int = 0
    """Jobs that a worker runs before it is replaced, or up to a quarter fewer; 0 for any number."""
    max_memory: int = 0
    """Bytes that a worker may occupy between two jobs; 0 for any number."""

    @classmethod
    def of(cls, settings: Settings, *, is_async: bool) -> Self:
        """What ``settings`` ask for; ``is_async``: whether ``on_task`` is a coroutine function."""
        ahead = settings.task_window - 1 if settings.task_window else MAX_AHEAD
        return cls(
            concurrency=settings.task_concurrency if is_async else 1,
            grace=GRACE if is_async else 0.0,
            max_window=min(ahead, MAX_AHEAD),
            max_request=settings.task_max_request,
            max_memory=settings.task_max_memory,
        )
