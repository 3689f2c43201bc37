"""Posting jobs and waiting for how they end: what is behind `run_task` and its like."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import trio

from trioserver._tasks._task import NO_WAITING
from trioserver._tasks._values import Completion

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from trioserver._tasks._job import Caller, Job
    from trioserver._tasks._patience import Patience

KILL_TIME: Final = 5.0
"""Seconds that a killed worker has to be gone; SIGKILL needs milliseconds."""

_AT_ONCE: Final = 5000
"""Completions that are made before others have their turn; that many take about a millisecond."""

is_in_task: ContextVar[bool] = ContextVar("is_in_task", default=False)
"""Whether this runs inside a task: true where tasks run in the process that posts them."""


def refuse_in_task() -> None:
    """Refuse to wait for a task where that could last for ever.

    Raises:
      RuntimeError: inside a task.
    """
    if is_in_task.get():
        raise RuntimeError(NO_WAITING)


async def run_jobs(
    jobs_for: Callable[[Caller], Iterable[Job]],
    post_all: Callable[[Iterable[Job], list[Job]], Awaitable[None]],
    cancel: Callable[[Job, str], None],
    patience_for: Callable[[list[Job]], Patience | None],
) -> list[Completion]:
    """Post ``jobs`` and wait until all have ended; if this does not go well, none runs on.

    Args:
      jobs_for: Makes jobs that have this caller, as they are posted: a long list needs no memory.
      post_all: Posts them, waiting for room, and appends each to a list when it is posted.
      cancel: Ends one that was posted, for the reason given.
      patience_for: Called with what was posted: the patience with which to wait for it, if any.

    Returns:
      How each ended, in the order of the jobs.
    """
    caller = _Caller()
    posted: list[Job] = []
    try:
        await post_all(jobs_for(caller), posted)
        await caller.wait(len(posted), patience_for(posted))
    except BaseException:
        for job in reversed(posted):
            cancel(job, "its caller was cancelled")
        # A killed worker is gone within milliseconds; then nothing of the caller's runs on.
        with trio.move_on_after(KILL_TIME, shield=True):
            await caller.wait(len(posted))
        raise
    completions: list[Completion] = []
    for first in range(0, len(posted), _AT_ONCE):
        if first:
            await trio.lowlevel.cancel_shielded_checkpoint()  # all have ended: it is too late
        completions += [Completion(job) for job in posted[first : first + _AT_ONCE]]
    return completions


class _Caller:
    """Hears of the ends of the jobs of one `run_jobs` (`_job.Caller`)."""

    __slots__ = ("_ended", "_task", "_wanted")

    def __init__(self) -> None:
        self._ended = 0
        self._wanted = 0
        # Who waits for so many; without an event, which costs more than all of this.
        self._task: trio.lowlevel.Task | None = None

    def some_ended(self, count: int) -> None:
        self._ended += count
        if self._task is not None and self._ended >= self._wanted:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self, count: int, patience: Patience | None = None) -> None:
        """Until ``count`` jobs have ended."""
        if self._ended < count and patience is not None and patience.begins():
            while patience.goes_on():
                await trio.lowlevel.checkpoint()
                if self._ended >= count:
                    patience.has_paid()
                    return
        if self._ended >= count:
            await trio.lowlevel.checkpoint()
            return
        self._wanted = count
        self._task = trio.lowlevel.current_task()

        def leave(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)
