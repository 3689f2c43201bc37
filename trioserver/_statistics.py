"""A whole server in numbers: frozen records for users."""

from __future__ import annotations

from typing import final

import attrs

from trioserver._tasks._statistics import TaskStatistics


@final
@attrs.frozen(kw_only=True)
class EventWorkerStatistics:
    """One event worker process."""

    id: int
    """From 0 to ``worker_num`` - 1; during a reload an old process has the id of its successor."""
    pid: int | None
    """Its process, None while there is none."""
    state: str
    """``"running"``, ``"starting"``, ``"leaving"`` (it accepts no more) or ``"dead"``."""
    connections: int
    """Those that are open."""
    rss: int | None
    """Bytes of memory that its process occupies, None if the system does not say."""
    uptime: float
    """Seconds since its start."""


@final
@attrs.frozen(kw_only=True)
class ServerStatistics(TaskStatistics):
    """All tasks since the start, and the connections and processes of now, of the whole server."""

    connections: int
    """Those that are open, in all event workers."""
    pid: int
    """The process to signal: the manager, or the only event worker."""
    uptime: float
    """Seconds since the start of the server."""
    event_workers: tuple[EventWorkerStatistics, ...]
    """The event workers; some ids twice while old ones leave after a reload."""
    is_reloading: bool
    """Whether a reload goes on."""
    is_stopping: bool
    """Whether the server is about to end."""
