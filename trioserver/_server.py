"""`Server`: what the callbacks of one event worker share."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, final

import trio

from trioserver._guard import contained

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from trioserver._net._connection import Connection
    from trioserver._net._connections import Connections
    from trioserver._settings import Settings
    from trioserver._stopping import Stopping
    from trioserver._tasks._finishing import OnFinish
    from trioserver._tasks._pool import TaskPool
    from trioserver._tasks._values import Completion

ResultT = TypeVar("ResultT")
ArgsT = TypeVarTuple("ArgsT")

logger = logging.getLogger("trioserver.server")


@final
class Server:
    """What callbacks of one event worker share; `serve` makes it, and ``started()`` returns it.

    Posting (`task`, `task_nowait`, `run_task`, `run_tasks`, `run_sync`) raises `RuntimeError` where
    ``task_worker_num`` is 0, and `trio.ClosedResourceError` once the server has stopped waiting for
    tasks.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        addresses: tuple[str, ...],
        stopping: Stopping,
        connections: Connections,
        pool: TaskPool | None,
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

    async def task(
        self,
        data: object,
        *,
        on_finish: Callable[[Completion], Awaitable[object]] | None = None,
    ) -> int:
        """Post ``data`` to ``on_task`` in a task worker process (Swoole's ``task``).

        Returns at once unless `Settings.max_queued_tasks` are queued, or as many completions wait
        for ``on_finish``; then it waits, so a fast client cannot outrun the task workers. Called
        inside ``on_finish``, it waits for the queue alone, so it cannot wait for itself. How the
        task ends reaches ``on_finish`` exactly once; the task outlives the connection that asked
        for it (see `Connection.task` for one that does not).

        Checks for cancellation at every call, but yields to other Trio tasks only about every
        millisecond. Cancelling the call leaves nothing queued; cancelling later has no effect on
        the task.

        Args:
          data: Anything that can be pickled; it is pickled before anything else happens.
          on_finish: Hears of this task in place of the app's ``on_finish``.

        Returns:
          The id that the completion will carry, from 0.

        Raises:
          TypeError: if ``data`` cannot be pickled, or ``on_finish`` not called.
        """
        return await self._post(data, None, on_finish)

    def task_nowait(
        self,
        data: object,
        *,
        on_finish: Callable[[Completion], Awaitable[object]] | None = None,
    ) -> int:
        """Post as `task` does, if that needs no waiting.

        Raises:
          trio.WouldBlock: if it does.
          TypeError: if ``data`` cannot be pickled.
        """
        return self._post_nowait(data, None, on_finish)

    async def run_task(self, data: object) -> Any:
        """Post ``data`` and wait for the result (Swoole's ``taskwait``).

        Cancelling it kills the task, with the processes that the task has started, and waits until
        they are gone. The outcome comes here, and not to ``on_finish``.

        Raises:
          TaskFailed: if ``on_task`` raised.
          TaskWorkerCrashed: if the worker died while it ran this task.
          TaskCancelled: if `cancel` or the end of the server ended it.
          TypeError: if ``data`` cannot be pickled.
        """
        return await self._pool.run_task(data)

    async def run_tasks(self, items: Iterable[object]) -> list[Completion]:
        """Post each of ``items`` and wait for all (Swoole's ``taskWaitMulti``, without its cap).

        Cancelling it, or an item that cannot be pickled, ends all of them as `run_task` says.

        Returns:
          How each ended, in the order of ``items``; a completion's ``result`` raises its error.
        """
        return await self._pool.run_tasks(items)

    async def run_sync(self, fn: Callable[[*ArgsT], ResultT], *args: *ArgsT) -> ResultT:
        """Call ``fn(*args)`` in a task worker, as `trio.to_thread.run_sync` does in a thread.

        ``fn`` must be importable by name there; the arguments and the result are pickled.

        Cancellation and errors are those of `run_task`.
        """
        return await self._pool.run_sync(fn, args)

    def cancel(self, task_id: int) -> bool:
        """End a task: at once if it is queued, by killing its worker if it runs.

        Its completion says `TaskCancelled`, unless it ends by itself in that very moment.

        Returns:
          False if no such task is queued or running.
        """
        return self._pool.cancel(task_id)

    async def _post(
        self, data: object, stream: Connection | None, on_finish: OnFinish | None
    ) -> int:
        return await self._pool.task(data, stream=stream, on_finish=on_finish)

    def _post_nowait(
        self, data: object, stream: Connection | None, on_finish: OnFinish | None
    ) -> int:
        return self._pool.task_nowait(data, stream=stream, on_finish=on_finish)

    def _connect(self, stream: trio.abc.Stream) -> None:
        """Serve a stream that came by another way than a listener."""
        self._connections.add_stream(stream)

    @property
    def _pool(self) -> TaskPool:
        if self._task_pool is None:
            raise RuntimeError("task_worker_num is 0: this server has no task workers")
        return self._task_pool

    def __repr__(self) -> str:
        return f"<Server on {', '.join(self._addresses)}: {len(self._connections)} connections>"
