"""`Server`: what the callbacks of one event worker share."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol, TypeVarTuple, final

import trio

from trioserver._guard import contained
from trioserver._tasks._payloads import dump
from trioserver._tasks._task_calls import TaskCalls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trioserver._app import App
    from trioserver._net._connection import Connection
    from trioserver._net._connections import Connections
    from trioserver._settings import Settings
    from trioserver._statistics import ServerStatistics
    from trioserver._stopping import Stopping
    from trioserver._tasks._pool import Pool

ArgsT = TypeVarTuple("ArgsT")

logger = logging.getLogger("trioserver.server")


class Whole(Protocol):
    """The server that an event worker is a part of."""

    def join(self, server: Server, connections: Connections, pool: Pool | None) -> None:
        """An event worker is made, and about to start."""

    def statistics(self) -> ServerStatistics:
        """See `Server.statistics`."""

    def reload(self, *, only_task_workers: bool = False) -> None:
        """See `Server.reload`."""

    def shutdown(self) -> None:
        """See `Server.shutdown`."""

    def cancel(self, task_id: int) -> bool:
        """End a task, whoever has posted it."""

    def send_message(self, worker_id: int | None, body: bytes) -> None:
        """Send a pickled message to one event worker, or to all others."""


@final
class Server(TaskCalls):
    """What callbacks of one event worker share; `serve` makes it, and ``started()`` returns it.

    What is asked of tasks (see `TaskCalls`) raises `RuntimeError` where ``task_worker_num`` is 0.
    """

    def __init__(
        self,
        *,
        app: App,
        worker_id: int,
        settings: Settings,
        addresses: tuple[str, ...],
        whole: Whole,
        stopping: Stopping,
        connections: Connections,
        pool: Pool | None,
        background: trio.Nursery,
    ) -> None:
        self._app = app
        self._worker_id = worker_id
        self._settings = settings
        self._whole = whole
        self._stopping = stopping
        self._addresses = addresses
        self._connections = connections
        self._task_pool = pool
        self._background = background

    @property
    def worker_id(self) -> int:
        """The number of this event worker, from 0 to ``worker_num`` - 1; its successors keep it."""
        return self._worker_id

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
        """Begin a graceful stop of the whole server; returns at once, and may be called again.

        It is what SIGTERM does.

        The server stops accepting and reading, lets callbacks end and tasks run, queued ones too,
        for `Settings.max_wait_time` at the most, and delivers a completion for every task.
        """
        self._whole.shutdown()

    def reload(self, *, only_task_workers: bool = False) -> None:
        """Have fresh processes with the app's code of now take over; returns at once.

        It is what SIGUSR1 does, or SIGUSR2 for task workers alone. No connection is refused, no
        task is lost, and code that is broken changes nothing. What is asked for during a reload
        follows it, once.

        Raises:
          RuntimeError: if the server is stopping; if there is nothing to reload: no task workers,
            or, in a program that embeds the server, anything but task workers.
        """
        self._whole.reload(only_task_workers=only_task_workers)

    def send_message(self, worker_id: int, message: object) -> None:
        """Have ``on_message`` called in another event worker (Swoole's ``sendMessage``).

        Returns at once. The message is lost if that worker dies before it has it, or is being
        replaced.

        Args:
          worker_id: Which one.
          message: Anything that can be pickled.

        Raises:
          TypeError: if the message cannot be pickled, or ``worker_id`` is no whole number.
          ValueError: if there is no such worker, or it is this one, or the message is larger than
            `Settings.max_task_size`.
          RuntimeError: if the app has no ``on_message``.
          trio.WouldBlock: if too many messages are on their way.
        """
        if type(worker_id) is not int:
            raise TypeError(f"worker_id must be a whole number: {worker_id!r}")
        if worker_id == self._worker_id or not 0 <= worker_id < self._settings.worker_num:
            raise ValueError(f"worker_id must be that of another event worker: {worker_id!r}")
        self._whole.send_message(worker_id, self._pickled(message))

    def broadcast(self, message: object) -> None:
        """Have ``on_message`` called in all other event workers; else as `send_message`.

        During a reload these are the old ones too, which serve their last connections, and among
        them the one that had the same number.
        """
        self._whole.send_message(None, self._pickled(message))

    def _pickled(self, message: object) -> bytes:
        if self._app.on_message is None:
            raise RuntimeError(f"{self._app.name} has no on_message: nobody would hear a message")
        return dump(message, "the message", self._settings.max_task_size)

    def cancel(self, task_id: int) -> bool:
        """End a task as `TaskCalls.cancel` does, also one that another event worker has posted."""
        return self._pool.cancel(task_id) or self._whole.cancel(task_id)

    def statistics(self) -> ServerStatistics:
        """What has become of tasks, connections and processes of the whole server, in numbers.

        Where there are several event workers, it waits for the manager's answer, for some hundred
        microseconds.
        """
        return self._whole.statistics()

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
