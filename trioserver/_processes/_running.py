"""The life of a server of several processes: its addresses, its processes, its end.

The nesting of ``async with`` in `_live` is the order of the shutdown: event workers leave before
the task workers that work for them.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import trio

import trioserver
from trioserver._bare import run_bare
from trioserver._control import bind_control
from trioserver._net._binding import bind_all
from trioserver._notifying import Notifier
from trioserver._pid_file import open_pid_file
from trioserver._processes._guest import Desk
from trioserver._processes._manager import Manager
from trioserver._processes._room import Room, open_room
from trioserver._processes._staff import Staff
from trioserver._signalled import ends, raise_descriptor_limit, run_process, serve_signalled
from trioserver._signals import SIGNALS
from trioserver._stopping import Stopping
from trioserver._tasks._local import LocalTaskWorkers
from trioserver._tasks._workers import open_dispatcher
from trioserver._watching import check_watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from trioserver._net._listeners import Listener
    from trioserver._processes._plan import Plan

logger = logging.getLogger("trioserver.manager")


def run_manager(plan: Plan) -> int:
    """Serve ``plan`` by many processes until a signal stops them; the exit code."""
    return run_process(partial(_serve, plan), plan.settings, f"manager ({plan.name})")


async def _serve(plan: Plan, early: Sequence[int]) -> int:
    settings = plan.settings
    with trio.open_signal_receiver(*SIGNALS) as signals:
        if ends(early):
            return 0
        if settings.reload:
            check_watching()
        raise_descriptor_limit(settings, 0, settings.worker_num + settings.task_worker_num)
        stopping = Stopping(settings.max_wait_time)
        notifier = Notifier()
        with (
            bind_all(settings.bind) as listeners,
            open_pid_file(settings.pid_file),
            open_room() as room,
            bind_control(settings.control) if settings.control else nullcontext() as control,
        ):
            workers = None
            if settings.task_worker_num:
                workers = LocalTaskWorkers(plan, settings, stopping)
            manager = Manager(plan, stopping, workers, notifier)
            await serve_signalled(
                partial(manage, manager, plan, listeners, room),
                manager,
                stopping,
                notifier,
                control,
                plan.files if settings.reload else (),
                plan.name,
                signals,
                early,
            )
    return 1 if stopping.cut else 0


async def manage(  # noqa: ASYNC128  # `_live` calls started()
    manager: Manager,
    plan: Plan,
    listeners: Sequence[Listener],
    room: Room,
    *,
    task_status: trio.TaskStatus[Manager],
) -> None:
    """Run the server of ``plan`` on bound sockets until its stop; ``started()`` when it accepts.

    Raises:
      AddressError: if an address cannot be served.
      AppError: if a process cannot start.
    """
    try:
        await run_bare(_live, manager, plan, listeners, room, task_status)
    finally:
        if manager.stopping.cut:
            logger.warning("%d tasks and callbacks were cut", manager.stopping.cut)


async def _live(
    manager: Manager,
    plan: Plan,
    listeners: Sequence[Listener],
    room: Room,
    task_status: trio.TaskStatus[Manager],
) -> None:
    began = trio.current_time()
    settings = plan.settings
    stopping = manager.stopping
    async with (
        # 2. task workers leave
        _open_desk(manager, plan, room) as desk,
        # 1. event workers leave
        trio.open_nursery() as living,
    ):
        manager.staff = staff = Staff(plan, listeners, desk, room, stopping, manager, living)
        await staff.start()
        for listener in listeners:
            listener.listen(settings.backlog)
        staff.accept()
        _log_start(plan, listeners, began)
        task_status.started(manager)
        async with trio.open_nursery() as reloading:
            reloading.start_soon(manager.run_reloads)
            with _counting_cut(staff, stopping):
                await stopping.wait_requested()
            logger.info("stopping, within %g s", settings.max_wait_time)
            reloading.cancel_scope.cancel()
        for listener in listeners:
            listener.close()
        with _counting_cut(staff, stopping):
            await staff.stop()
        if desk is not None:
            desk.is_closed = True
        living.cancel_scope.cancel()
    if not stopping.cut:
        logger.info("stopped")


@contextmanager
def _counting_cut(staff: Staff, stopping: Stopping) -> Iterator[None]:
    """Count what is ended by force when all ends at once, before task workers are seen to die."""
    try:
        yield
    except BaseException:
        stopping.cut += sum(len(worker.tasks) for worker in staff.workers)
        raise


@asynccontextmanager
async def _open_desk(manager: Manager, plan: Plan, room: Room) -> AsyncIterator[Desk | None]:
    """The one dispatcher, if there are task workers."""
    workers = manager.workers
    if workers is None:
        room.publish(0, 0, 0, 0)
        yield None
        return
    async with open_dispatcher(workers) as dispatcher:
        manager.dispatcher = dispatcher
        manager.desk = Desk(dispatcher, plan.settings, room, manager.task_ids())
        yield manager.desk


def _log_start(plan: Plan, listeners: Sequence[Listener], began: float) -> None:
    logger.info("trioserver %s serves %s", trioserver.__version__, plan.name)
    for listener in listeners:
        logger.info("listening on %s", listener.address)
    logger.info(
        "ready in %.2f s: %d event workers, %d task workers",
        trio.current_time() - began,
        plan.settings.worker_num,
        plan.settings.task_worker_num,
    )
