"""The life of one event worker: `serve`, and the `Server` that callbacks see.

The nesting of ``async with`` in `_live` is the order of the shutdown: outside in to start, inside
out to stop. Nothing polls a flag; all stages of a stop share one deadline (`_stopping`).
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, final

import trio

import trioserver
from trioserver._app import App, load_app
from trioserver._errors import AppError, TrioserverError
from trioserver._guard import contained
from trioserver._importing import refuse_in_spawned_child
from trioserver._net._connections import Protocol, open_connections
from trioserver._net._listeners import bind_all
from trioserver._pacing import Pacer
from trioserver._settings import Settings
from trioserver._stopping import Stopping
from trioserver._tasks._local import LocalTaskWorkers
from trioserver._tasks._pool import open_task_pool
from trioserver._tasks._workers import open_dispatcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from trioserver._net._connection import Connection
    from trioserver._net._connections import Connections
    from trioserver._net._listeners import Listener
    from trioserver._tasks._finishing import OnFinish
    from trioserver._tasks._pool import TaskPool
    from trioserver._tasks._values import Completion
    from trioserver._tasks._workers import TaskWorkers

T = TypeVar("T")
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
        """
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
          TypeError: if ``data`` cannot be pickled.
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

    async def run_task(self, data: object) -> Any:  # noqa: ANN401  # only the app knows what its tasks return
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
        """Call any importable ``fn(*args)`` in a task worker, as `trio.to_thread.run_sync` in a thread.

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


async def serve(
    app: object,
    settings: Settings | None = None,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` until `Server.shutdown` or cancellation.

    One event worker, in this process and this Trio task; its task workers are child processes. It
    handles no signals: see `trioserver.run` for that. Meant for `trio.Nursery.start`, which returns
    the `Server` when connections are accepted, and several may run in one process.

    A stop by `Server.shutdown` is graceful. Cancellation ends everything at once: callbacks are
    cancelled, tasks are killed, and nothing more is delivered.

    Args:
      app: A class, an object or a module with ``on_*`` attributes, or ``"module:attr"``.
      settings: Replace those that the app carries.

    Raises:
      AppError: if the app is not one, or cannot start in a task worker, or its ``on_worker_start``
        raises.
      AddressError: if an address of ``bind`` cannot be served.
    """
    refuse_in_spawned_child()
    checked = app if isinstance(app, App) else load_app(app)
    settings = settings or checked.settings or Settings()
    checked.check(settings)
    stopping = Stopping(settings.max_wait_time)
    workers = None
    if settings.task_worker_num:
        assert checked.spec is not None, "App.check has seen to it"
        workers = LocalTaskWorkers(checked.spec, settings.task_worker_num, stopping)
    with bind_all(settings.bind) as listeners:
        await run_event_worker(checked, settings, listeners, workers, stopping, task_status)


async def run_event_worker(
    app: App,
    settings: Settings,
    listeners: Sequence[Listener],
    workers: TaskWorkers | None,
    stopping: Stopping,
    task_status: trio.TaskStatus[Server],
) -> None:
    """Run an event worker on sockets that are bound, over an engine of the caller's; see `serve`."""
    cause: BaseException
    try:
        await _live(app, settings, listeners, workers, stopping, task_status)
    except BaseExceptionGroup as group:
        # Every nursery on the way wraps what fails in it, and a start that fails has one reason.
        cause = group
        while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
            (cause,) = cause.exceptions
        if not isinstance(cause, TrioserverError):
            raise
    else:
        return
    raise cause


async def _live(
    app: App,
    settings: Settings,
    listeners: Sequence[Listener],
    workers: TaskWorkers | None,
    stopping: Stopping,
    task_status: trio.TaskStatus[Server],
) -> None:
    began = trio.current_time()
    pacer = Pacer()
    protocol = Protocol(
        framing=app.framing,
        max_length=settings.package_max_length,
        on_connect=app.on_connect,
        on_receive=app.on_receive,
        on_stream=app.on_stream,
        on_close=app.on_close,
    )
    async with (
        # 5. the task workers leave
        _maybe(workers and open_dispatcher(workers)) as dispatcher,
        # 4. connections close
        open_connections(
            protocol, max_conn=settings.max_conn, pacer=pacer, stopping=stopping
        ) as connections,
        # what `Server.start_soon` has started is cancelled
        _open_background() as background,
        # 3. tasks run out, and their completions are delivered
        _maybe(
            dispatcher and open_task_pool(dispatcher, app.on_finish, settings, stopping, pacer)
        ) as pool,
        # 2. callbacks end
        connections.handling(stopping),
    ):
        server = Server(
            settings=settings,
            addresses=tuple(listener.address for listener in listeners),
            stopping=stopping,
            connections=connections,
            pool=pool,
            background=background,
        )
        connections.server = server
        connections.on_closing = pool and pool.cancel_of_stream
        await _start(app, server)
        # 1. nobody is accepted any more
        async with trio.open_nursery() as accepting:
            for listener in listeners:
                listener.listen(settings.backlog)
                accepting.start_soon(listener.accept_into, connections)
            _log_start(app, server, trio.current_time() - began)
            task_status.started(server)
            await stopping.wait_requested()
            logger.info("stopping, within %g s", settings.max_wait_time)
            accepting.cancel_scope.cancel()
        for listener in listeners:
            listener.close()
    if app.on_worker_stop is not None:
        with stopping.for_a_stage() as stage:
            await contained(logger, "on_worker_stop", app.on_worker_stop, server)
        stopping.cut += stage.cancelled_caught
    if stopping.cut:
        logger.warning("stopped; %d tasks and callbacks were cut", stopping.cut)
    else:
        logger.info("stopped")


async def _start(app: App, server: Server) -> None:
    if app.on_worker_start is None:
        return
    try:
        await app.on_worker_start(server)
    except Exception as exc:
        raise AppError(f"on_worker_start raised {type(exc).__name__}: {exc}") from exc


def _log_start(app: App, server: Server, seconds: float) -> None:
    settings = server.settings
    logger.info("trioserver %s serves %s", trioserver.__version__, app.name)
    for address in server.addresses:
        logger.info("listening on %s", address)
    logger.info(
        "ready in %.2f s: %d event worker, %d task workers",
        seconds,
        settings.worker_num,
        settings.task_worker_num,
    )


@asynccontextmanager
async def _open_background() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks do not hold up the stop."""
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _maybe(context: AbstractAsyncContextManager[T] | None) -> AsyncIterator[T | None]:
    """Enter ``context`` if there is one."""
    if context is None:
        yield None
    else:
        async with context as value:
            yield value
