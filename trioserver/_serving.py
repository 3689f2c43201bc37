"""`serve`: the life of one event worker.

The nesting of ``async with`` in `_live` is the order of the shutdown: outside in to start, inside
out to stop. Nothing polls a flag; all stages of a stop share one deadline (`_stopping`).
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio

import trioserver
from trioserver._alone import Alone
from trioserver._app import App, load_app
from trioserver._bare import run_bare
from trioserver._errors import AppError, summary_of
from trioserver._guard import contained
from trioserver._importing import refuse_in_spawned_child
from trioserver._net._binding import bind_all
from trioserver._net._connections import Protocol, open_connections
from trioserver._net._frame_limit import FrameLimit
from trioserver._pacing import Pacer
from trioserver._server import Server
from trioserver._settings import Settings
from trioserver._stopping import Stopping
from trioserver._tasks._local import LocalTaskWorkers
from trioserver._tasks._pool_life import open_pool
from trioserver._tasks._workers import open_dispatcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from trioserver._net._listeners import Listener
    from trioserver._server import Whole
    from trioserver._tasks._pool_dispatcher import PoolDispatcher
    from trioserver._tasks._workers import TaskWorkers

T = TypeVar("T")

logger = logging.getLogger("trioserver.server")


async def serve(  # noqa: ASYNC128  # `_live` calls started()
    app: object,
    settings: Settings | None = None,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` until `Server.shutdown` or cancellation.

    One event worker, in this process and this Trio task; its task workers are child processes. It
    handles no signals: see `trioserver.run` for that. Meant for `trio.Nursery.start`, which returns
    the `Server` when connections are accepted, and several may run in one process. What concerns a
    process and not an event worker (``worker_num``, ``max_request``, ``pid_file``, ``control``,
    ``reload``) has no effect here.

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
    if settings.worker_num > 1:
        logger.info(
            "worker_num is %d, but this is one event worker, in a program of its own",
            settings.worker_num,
        )
    stopping = Stopping(settings.max_wait_time)
    workers = None
    if settings.task_worker_num:
        workers = LocalTaskWorkers(checked, settings, stopping)
    with bind_all(settings.bind) as listeners:
        await run_event_worker(
            checked, settings, listeners, workers, stopping, task_status=task_status
        )


async def run_event_worker(  # noqa: ASYNC128  # as above
    app: App,
    settings: Settings,
    listeners: Sequence[Listener],
    workers: TaskWorkers | None,
    stopping: Stopping,
    *,
    whole: Alone | None = None,
    task_status: trio.TaskStatus[Server],
) -> None:
    """Be the only event worker of a server, on bound sockets, over an engine of the caller's.

    See `serve`; ``whole`` is made unless given.
    """
    if whole is None:
        whole = Alone(stopping, workers)

    async def listen() -> None:  # noqa: ASYNC124  # others wait here for their manager
        for listener in listeners:
            listener.listen(settings.backlog)

    surroundings = Surroundings(
        worker_id=0,
        stream_ids=whole.stream_ids,
        dispatching=None if workers is None else open_dispatcher(workers, whole.task_ids),
        whole=whole,
        may_accept=listen,
        beside=whole.run_reloads,
        is_alone=True,
        on_worn_out=whole.on_worn_out,
    )
    await live_in(surroundings, app, settings, listeners, stopping, task_status=task_status)


@attrs.frozen(kw_only=True)
class Surroundings:
    """What an event worker has from the server that it is a part of."""

    worker_id: int
    stream_ids: Iterator[int]
    """The ids of its connections."""
    dispatching: AbstractAsyncContextManager[PoolDispatcher] | None
    """Opens what has its tasks run, if there are task workers."""
    whole: Whole
    may_accept: Callable[[], Awaitable[object]]
    """Called when it is ready; returns when the sockets listen and it may accept."""
    accepts_no_more: Callable[[], object] = lambda: None
    """Called when it has stopped accepting."""
    beside: Callable[[], Awaitable[object]]
    """Runs while it accepts, and, where others go on, until it closes what is idle."""
    is_alone: bool = False
    """Whether its start and its stop are the server's, and worth a line in the log."""
    on_worn_out: Callable[[], object] | None = None
    """Called after ``max_request`` frames, if there is anybody who replaces it."""


async def live_in(  # noqa: ASYNC128  # as above
    surroundings: Surroundings,
    app: App,
    settings: Settings,
    listeners: Sequence[Listener],
    stopping: Stopping,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Be an event worker on bound sockets."""
    try:
        await run_bare(_live, surroundings, app, settings, listeners, stopping, task_status)
    finally:
        if stopping.cut:
            logger.warning("%d tasks and callbacks were cut", stopping.cut)


async def _live(
    surroundings: Surroundings,
    app: App,
    settings: Settings,
    listeners: Sequence[Listener],
    stopping: Stopping,
    task_status: trio.TaskStatus[Server],
) -> None:
    level = logging.INFO if surroundings.is_alone else logging.DEBUG
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
    frame_limit = None
    if settings.max_request and surroundings.on_worn_out is not None:
        frame_limit = FrameLimit(settings.max_request, surroundings.on_worn_out)
    async with (
        # 5. the task workers leave
        _maybe(surroundings.dispatching) as dispatcher,
        # 4. connections close
        open_connections(
            protocol,
            ids=surroundings.stream_ids,
            max_conn=settings.max_conn,
            pacer=pacer,
            stopping=stopping,
            frame_limit=frame_limit,
        ) as connections,
        # what `Server.start_soon` has started is cancelled
        _open_background() as background,
        # 3. tasks run out, and their completions are delivered
        _maybe(
            None
            if dispatcher is None or app.on_finish is None
            else open_pool(dispatcher, app.on_finish, app.on_progress, settings, stopping, pacer)
        ) as pool,
        # 2. callbacks end
        connections.handling(stopping),
    ):
        server = Server(
            app=app,
            worker_id=surroundings.worker_id,
            settings=settings,
            addresses=tuple(listener.address for listener in listeners),
            whole=surroundings.whole,
            stopping=stopping,
            connections=connections,
            pool=pool,
            background=background,
        )
        connections.server = server
        surroundings.whole.join(server, connections, pool)
        if pool is not None:
            connections.on_closing = pool.cancel_of_stream
            connections.wait_heard = pool.wait_heard_of
        await _start(app, server)
        async with trio.open_nursery() as beside:
            beside.start_soon(surroundings.beside)
            # 1. nobody is accepted any more
            async with trio.open_nursery() as accepting:
                await surroundings.may_accept()
                for listener in listeners:
                    accepting.start_soon(listener.accept_into, connections)
                _log_start(level, app, server, trio.current_time() - began)
                task_status.started(server)
                await stopping.wait_requested()
                _log_stop(level, settings, stopping)
                accepting.cancel_scope.cancel()
            surroundings.accepts_no_more()
            if stopping.keeps_listening:
                await stopping.wait_before_idle_ones_close(connections.wait_none)
            else:
                for listener in listeners:
                    listener.close()
            beside.cancel_scope.cancel()
    if app.on_worker_stop is not None:
        with stopping.for_a_stage() as stage:
            await contained(logger, "on_worker_stop", app.on_worker_stop, server)
        stopping.cut += stage.cancelled_caught
    if not stopping.cut:
        logger.log(level, "stopped")


async def _start(app: App, server: Server) -> None:
    if app.on_worker_start is None:
        return
    try:
        await app.on_worker_start(server)
    except (Exception, SystemExit) as exc:  # a group of exceptions is an Exception, too
        raise AppError(f"on_worker_start raised {summary_of(exc)}") from exc


def _log_stop(level: int, settings: Settings, stopping: Stopping) -> None:
    if stopping.hands_over:
        logger.log(level, "leaving: open connections have %g s", settings.max_wait_time)
    else:
        logger.log(level, "stopping, within %g s", settings.max_wait_time)


def _log_start(level: int, app: App, server: Server, seconds: float) -> None:
    settings = server.settings
    logger.log(level, "trioserver %s serves %s", trioserver.__version__, app.name)
    for address in server.addresses:
        logger.log(level, "listening on %s", address)
    logger.log(
        level, "ready in %.2f s: 1 event worker, %d task workers", seconds, settings.task_worker_num
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
