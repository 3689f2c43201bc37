"""The manager: what a server of several processes can be asked, by operators and event workers.

It never imports the app, nor unpickles what users post.
"""

from __future__ import annotations

import itertools
import logging
import os
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

import attrs
import trio

from trioserver._errors import AppError
from trioserver._logs import log_app_error
from trioserver._processes._channel import ALL, Say
from trioserver._processes._checking import check_anew
from trioserver._processes._guest import CANCELLED, Desk
from trioserver._processes._questions import IDS, Ask
from trioserver._reloads import Reloads
from trioserver._statistics import ServerStatistics
from trioserver._tasks._statistics import TaskStatistics

if TYPE_CHECKING:
    from trioserver._notifying import Notifier
    from trioserver._processes._event_worker import EventWorker
    from trioserver._processes._plan import Plan
    from trioserver._processes._staff import Staff
    from trioserver._stopping import Stopping
    from trioserver._tasks._dispatcher import Dispatcher
    from trioserver._tasks._local import LocalTaskWorkers

logger = logging.getLogger("trioserver.manager")

_MAX_UNSENT: Final = 64 * 2**20
"""Bytes that an event worker may leave unread before messages of others to it are dropped."""


class Manager:
    """A server of several processes as those see it who operate it (`_controls.Controls`).

    Args:
      plan: What it serves.
      stopping: How it ends.
      workers: The engine of its task workers, if it has any.
      notifier: Told of reloads and of the stop.
    """

    def __init__(
        self,
        plan: Plan,
        stopping: Stopping,
        workers: LocalTaskWorkers | None,
        notifier: Notifier,
    ) -> None:
        self._plan = plan
        self.stopping = stopping
        self.workers = workers
        self._notifier = notifier
        self._reloads = Reloads()
        self._began = trio.current_time()
        self._task_ids = itertools.count(0, IDS)
        self._stream_ids = itertools.count(1, IDS)
        # Event workers that lose messages.
        self._deaf: WeakSet[EventWorker] = WeakSet()
        # Set when they are open.
        self.dispatcher: Dispatcher | None = None
        self.desk: Desk | None = None
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
        if any(worker.cancel(task_id) for worker in self.staff.workers):
            return True
        return self.desk is not None and self.desk.cancel_abandoned(task_id, CANCELLED)

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
            # Old ones serve connections as well, whose clients are among all.
            is_meant = worker.number == number and worker is self.staff.current(number)
            if (is_meant or number == ALL) and worker is not source and self._reads(worker):
                worker.send(source.number, message)

    def _reads(self, worker: EventWorker) -> bool:
        """Whether messages to it need not be lost."""
        # One that has lost some is far behind, and is not to lose every other one from now on.
        is_deaf = worker.unsent > (_MAX_UNSENT // 2 if worker in self._deaf else _MAX_UNSENT)
        if not is_deaf:
            self._deaf.discard(worker)
        elif worker not in self._deaf:
            self._deaf.add(worker)
            logger.error("%s does not read: messages for it are lost", worker)
        return not is_deaf

    async def _reload(self, only_task_workers: bool) -> None:  # noqa: FBT001  # see `Reloads.run`
        self._notifier.reloading()
        try:
            await self._do_reload(only_task_workers=only_task_workers)
        except AppError as exc:
            log_app_error(logger, "the reload ends here, those not replaced go on", exc)
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
