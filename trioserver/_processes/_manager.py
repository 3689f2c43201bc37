"""The manager: binds, owns the one dispatcher, and has event workers started, watched and replaced.

It never imports the app, nor unpickles what users post. The nesting of ``async with`` in `_serve`
is the order of the shutdown: event workers leave before the task workers that work for them.
"""

from __future__ import annotations

import itertools
import logging
import os
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

import trioserver
from trioserver._bare import without_groups
from trioserver._control import bind_control
from trioserver._errors import AppError
from trioserver._net._listeners import bind_all
from trioserver._notifying import Notifier
from trioserver._pid_file import open_pid_file
from trioserver._processes._channel import ALL, Say
from trioserver._processes._checking import check_anew
from trioserver._processes._guest import Desk
from trioserver._processes._questions import IDS, Ask
from trioserver._processes._room import Room, open_room
from trioserver._processes._staff import Staff
from trioserver._reloads import Reloads
from trioserver._signalled import ends, raise_descriptor_limit, run_process, serve_signalled
from trioserver._signals import SIGNALS
from trioserver._statistics import ServerStatistics
from trioserver._stopping import Stopping
from trioserver._tasks._local import LocalTaskWorkers
from trioserver._tasks._statistics import TaskStatistics
from trioserver._tasks._workers import open_dispatcher
from trioserver._watching import check_watching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from trioserver._net._listeners import Listener
    from trioserver._processes._event_worker import EventWorker
    from trioserver._processes._plan import Plan
    from trioserver._tasks._dispatcher import Dispatcher

logger = logging.getLogger("trioserver.manager")

_MAX_UNSENT: Final = 64 * 2**20
"""Bytes that an event worker may leave unread before messages of others to it are dropped."""


class Manager:
    """A server of several processes as those see it who operate it (`_controls.Controls`).

    Args:
      plan: What it serves.
      stopping: How it ends.
      workers: The engine of its task workers, if it has any.
      room: What all processes share.
      notifier: Told of reloads and of the stop.
    """

    def __init__(
        self,
        plan: Plan,
        stopping: Stopping,
        workers: LocalTaskWorkers | None,
        room: Room,
        notifier: Notifier,
    ) -> None:
        self._plan = plan
        self.stopping = stopping
        self.workers = workers
        self._room = room
        self._notifier = notifier
        self._reloads = Reloads()
        self._began = trio.current_time()
        self._task_ids = itertools.count(0, IDS)
        self._stream_ids = itertools.count(1, IDS)
        self._warned_of: set[EventWorker] = set()
        # Set when they are open.
        self.dispatcher: Dispatcher | None = None
        self.staff: Staff

    # `Controls`

    def statistics(self) -> ServerStatistics:
        tasks = TaskStatistics() if self.dispatcher is None else self.dispatcher.statistics()
        workers = tuple(worker.statistics() for worker in self.staff.workers)
        return ServerStatistics(
            connections=sum(worker.connections for worker in workers),
            pid=os.getpid(),
            uptime=trio.current_time() - self._began,
            event_workers=workers,
            is_reloading=self._reloads.is_reloading,
            is_stopping=self.stopping.is_requested,
            **attrs.asdict(tasks, recurse=False),
        )

    def reload(self, *, only_task_workers: bool = False) -> None:
        if self.stopping.is_requested:
            raise RuntimeError("the server is stopping: it is not reloaded")
        if only_task_workers and self.workers is None:
            raise RuntimeError("task_worker_num is 0: this server has no task workers")
        self._reloads.request(only_task_workers=only_task_workers)

    def shutdown(self) -> None:
        self._notifier.stopping()
        self.stopping.request()

    def cancel(self, task_id: int) -> bool:
        return any(worker.cancel(task_id) for worker in self.staff.workers)

    async def scale(self, task_worker_num: int) -> None:
        if self.stopping.is_requested:
            raise RuntimeError("the server is stopping: its task workers stay as many as they are")
        await self._task_workers.scale(task_worker_num)

    async def stack(self, task_id: int) -> str:
        return await self._task_workers.stack(task_id)

    async def run_reloads(self) -> None:
        """Do reloads when they are asked for, until cancelled."""
        await self._reloads.run(self._reload)

    # What event workers ask (`_event_worker.Manager`)

    def worker_asks(self, worker: EventWorker, kind: int, number: int, body: bytes) -> None:
        if kind == Say.SEND:
            self._send(worker, number, body)
        elif kind == Say.RELOAD:
            try:
                self.reload(only_task_workers=bool(number))
            except RuntimeError as exc:
                logger.warning("%s asks for a reload, but %s", worker, exc)
        elif kind == Say.SHUTDOWN:
            logger.info("%s asks for the shutdown", worker)
            self.shutdown()
        elif kind == Say.RECYCLE:
            self.staff.recycle(worker)

    def answer(self, worker: EventWorker, question: int, number: int) -> object:
        del worker
        if question == Ask.STATISTICS:
            return self.statistics()
        if question == Ask.CANCEL:
            return self.cancel(number)
        if question == Ask.TASK_IDS:
            return next(self._task_ids)
        return next(self._stream_ids)

    def task_ids(self) -> itertools.chain[int]:
        """Ids for what tasks post, in blocks as event workers have them."""
        return itertools.chain.from_iterable(range(first, first + IDS) for first in self._task_ids)

    # Inside

    def _send(self, source: EventWorker, number: int, message: bytes) -> None:
        for worker in self.staff.workers:
            if worker is self.staff.current(worker.number) and (
                worker.number != source.number if number == ALL else worker.number == number
            ):
                if worker.unsent <= _MAX_UNSENT:
                    self._warned_of.discard(worker)
                    worker.send(source.number, message)
                elif worker not in self._warned_of:
                    self._warned_of.add(worker)
                    logger.error("%s does not read: messages for it are lost", worker)

    async def _reload(self, only_task_workers: bool) -> None:  # noqa: FBT001  # see `Reloads.run`
        self._notifier.reloading()
        try:
            await self._do_reload(only_task_workers=only_task_workers)
        except AppError as exc:
            logger.error(  # noqa: TRY400  # where it was raised says nothing about the app
                "the reload ends here, those not replaced go on: %s",
                exc,
                extra={"remote_traceback": exc.remote_traceback},
            )
        if not self.stopping.is_requested:
            self._notifier.ready(f"serving {self._plan.name}")

    async def _do_reload(self, *, only_task_workers: bool) -> None:
        what = "task workers" if only_task_workers else "event and task workers"
        logger.info("reloading %s", what)
        plan = await check_anew(self._plan)
        if plan.has_async_task is not self._plan.has_async_task:
            raise AppError("on_task has become another kind of function: that takes a restart")
        # Fresh task workers must do what fresh event workers will post, so they come first.
        if self.workers is not None:
            await self.workers.reload()
        if not only_task_workers:
            self.staff.plan = plan
            await self.staff.reload()
        logger.info("reloaded %s", what)

    @property
    def _task_workers(self) -> LocalTaskWorkers:
        if self.workers is None:
            raise RuntimeError("task_worker_num is 0: this server has no task workers")
        return self.workers


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
            manager = Manager(plan, stopping, workers, room, notifier)
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


async def manage(
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
    cause: BaseException
    try:
        await _live(manager, plan, listeners, room, task_status)
    except BaseExceptionGroup as group:
        cause = without_groups(group)
        if cause is group:
            raise
    else:
        return
    finally:
        if manager.stopping.cut:
            logger.warning("%d tasks and callbacks were cut", manager.stopping.cut)
    raise cause


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
        living.start_soon(staff.count_what_is_cut)
        await staff.start()
        for listener in listeners:
            listener.listen(settings.backlog)
        staff.accept()
        _log_start(plan, listeners, began)
        task_status.started(manager)
        async with trio.open_nursery() as reloading:
            reloading.start_soon(manager.run_reloads)
            await stopping.wait_requested()
            logger.info("stopping, within %g s", settings.max_wait_time)
            reloading.cancel_scope.cancel()
        for listener in listeners:
            listener.close()
        await staff.stop()
        if desk is not None:
            desk.is_closed = True
        living.cancel_scope.cancel()
    if not stopping.cut:
        logger.info("stopped")


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
        yield Desk(dispatcher, plan.settings, room, manager.task_ids())


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
