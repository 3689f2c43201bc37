"""`Server`: what the callbacks of one event worker share."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVarTuple, final

import attrs
import trio

from trioserver._guard import contained
from trioserver._tasks._statistics import TaskStatistics
from trioserver._tasks._task_calls import TaskCalls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trioserver._net._connection import Connection
    from trioserver._net._connections import Connections
    from trioserver._settings import Settings
    from trioserver._stopping import Stopping
    from trioserver._tasks._pool import Pool

ArgsT = TypeVarTuple("ArgsT")

logger = logging.getLogger("trioserver.server")


@final
@attrs.frozen(kw_only=True)
class ServerStatistics(TaskStatistics):
    """All tasks since the start, and the connections of now."""

    connections: int
    """Those that are open."""


@final
class Server(TaskCalls):
    """What callbacks of one event worker share; `serve` makes it, and ``started()`` returns it.

    What is asked of tasks (see `TaskCalls`) raises `RuntimeError` where ``task_worker_num`` is 0.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        addresses: tuple[str, ...],
        stopping: Stopping,
        connections: Connections,
        pool: Pool | None,
        background: trio.Nursery,
    ) -> None:
        self._settings = settings
        self._addresses = addresses
        self._stopping = stopping
        self._connections = connections
        self._task_pool = pool
        self._background = background

    @property
    def worker_id(self) -> int:
        """The number of this event worker; 0 where there is one."""
        return 0

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens, as ``bind`` has it, with the ports that were picked for port 0."""
        return self._addresses

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The open connections, the oldest first; as they are now, so awaiting between is safe."""
        return self._connections.all()

    @property
    def cut(self) -> int:
        """Tasks and callbacks that were ended by force while stopping, 0 after a clean stop."""
        return self._stopping.cut

    def start_soon(
        self, async_fn: Callable[[*ArgsT], Awaitable[object]], *args: *ArgsT, name: object = None
    ) -> None:
        """Run ``async_fn(*args)`` in the background, as `trio.Nursery.start_soon` does.

        It ends with the server: it is cancelled when tasks have run out, before connections close.
        If it raises, that is logged and costs nothing else.

        Raises:
          trio.ClosedResourceError: once these tasks were cancelled.
        """
        if self._background.cancel_scope.cancel_called:
            raise trio.ClosedResourceError("nothing more is started: the server is stopping")
        label = str(name or getattr(async_fn, "__qualname__", async_fn))
        self._background.start_soon(contained, logger, label, async_fn, *args, name=label)

    def shutdown(self) -> None:
        """Begin a graceful stop, as SIGTERM does; returns at once, and may be called again.

        The server stops accepting and reading, lets callbacks end and tasks run, queued ones too,
        for `Settings.max_wait_time` at the most, and delivers a completion for every task.
        """
        self._stopping.request()

    def statistics(self) -> ServerStatistics:
        """What has become of tasks and connections, in numbers as they are now."""
        tasks = TaskStatistics() if self._task_pool is None else self._pool.statistics()
        return ServerStatistics(
            connections=len(self._connections), **attrs.asdict(tasks, recurse=False)
        )

    def _connect(self, stream: trio.abc.Stream) -> None:
        """Serve a stream that came by another way than a listener."""
        self._connections.add_stream(stream)

    @property
    def _pool(self) -> Pool:
        if self._task_pool is None:
            raise RuntimeError("task_worker_num is 0: this server has no task workers")
        return self._task_pool

    def __repr__(self) -> str:
        return f"<Server on {', '.join(self._addresses)}: {len(self._connections)} connections>"
