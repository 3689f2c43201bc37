"""What has become of tasks, in numbers: frozen records for users, and the counters behind them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import attrs

from trioserver._tasks._wire import Status

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

_REMEMBERED: Final = 1000
"""The latest tasks, of which the quantiles are."""


@attrs.frozen
class Quantiles:
    """Of the latest 1,000 tasks that ran, in seconds; all 0 before the first one has ended."""

    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    max: float = 0.0

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """The quantiles of ``values``."""
        ordered = sorted(values)
        if not ordered:
            return cls()
        last = len(ordered) - 1
        return cls(*(ordered[round(last * share)] for share in (0.5, 0.9, 0.99, 1.0)))


@attrs.frozen
class RunningTask:
    """A task that runs now."""

    task_id: int
    attempt: int
    since: float
    """Seconds that it has run for."""


@attrs.frozen
class TaskWorkerStatistics:
    """One task worker."""

    id: int
    """From 0 to the number of task workers - 1; after a reload an old one has the same."""
    pid: int | None
    """Its process, None while it is being replaced."""
    state: str
    """``"idle"``, ``"busy"``, ``"leaving"`` or ``"dead"`` (being replaced).

    One that is leaving takes no more tasks, and goes when those that it has begun are over: since a
    fresh one has taken its place, or will, or since there are to be fewer.
    """
    tasks_done: int
    """Attempts that have ended there, by all processes that have had this id.

    Those of an old process that is leaving after a reload count in an entry of its own until it is
    gone.
    """
    rss: int | None
    """Bytes of memory that its process occupies, None if the system does not say."""
    running: tuple[RunningTask, ...]
    """What it runs; one at the most unless ``on_task`` is a coroutine function."""


@attrs.frozen(kw_only=True)
class TaskStatistics:
    """All tasks since the start.

    Always ``posted == queued + running + completed + failed + timed_out + cancelled + crashed +
    abandoned``.
    """

    posted: int = 0
    """Tasks that were accepted."""
    queued: int = 0
    """Tasks that wait for a worker, or for the time of their next attempt."""
    running: int = 0
    """Tasks that run, or will in a moment."""
    completed: int = 0
    """Tasks that ended with a result."""
    failed: int = 0
    """Tasks that ended as `TaskFailed`."""
    timed_out: int = 0
    """Tasks that ended as `TaskTimeout`."""
    cancelled: int = 0
    """Tasks that ended as `TaskCancelled`."""
    crashed: int = 0
    """Tasks that ended as `TaskWorkerCrashed`."""
    abandoned: int = 0
    """Tasks whose event worker died before it had heard of their end."""
    retried: int = 0
    """Attempts after a task's first one; not tasks of their own."""
    oldest_queued: float = 0.0
    """Seconds for which the first in line has been waiting, 0 if none is."""
    wait: Quantiles = Quantiles()
    """How long tasks waited in line for their run."""
    run: Quantiles = Quantiles()
    """How long they ran."""
    idle_workers: int = 0
    """Workers that have nothing to do, without old ones that are leaving after a reload."""
    dead_workers: int = 0
    """Workers that are being replaced, without old ones that are leaving after a reload."""
    workers: tuple[TaskWorkerStatistics, ...] = ()
    """One for each number, in order; then old ones that are leaving since others took theirs."""

    @property
    def is_balanced(self) -> bool:
        """Whether the sum above is right."""
        return self.posted == (
            self.queued
            + self.running
            + self.completed
            + self.failed
            + self.timed_out
            + self.cancelled
            + self.crashed
            + self.abandoned
        )


class Counters:
    """What a dispatcher counts as it goes."""

    def __init__(self) -> None:
        self.posted = 0
        self.retried = 0
        self.abandoned = 0
        self.ended: dict[int, int] = dict.fromkeys(
            (Status.OK, Status.FAILED, Status.CANCELLED, Status.CRASHED, Status.TIMED_OUT), 0
        )
        self.waits: deque[float] = deque(maxlen=_REMEMBERED)
        self.runs: deque[float] = deque(maxlen=_REMEMBERED)
