"""A server that is one process: what is asked of the whole is asked of its only event worker."""

from __future__ import annotations

import itertools
import logging
import os
from typing import TYPE_CHECKING, final

import attrs
import trio

from trioserver._errors import AppError
from trioserver._logs import log_app_error
from trioserver._memory import rss_of
from trioserver._notifying import Notifier
from trioserver._reloads import Reloads
from trioserver._statistics import EventWorkerStatistics, ServerStatistics
from trioserver._tasks._statistics import TaskStatistics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trioserver._net._connections import Connections
    from trioserver._server import Server
    from trioserver._stopping import Stopping
    from trioserver._tasks._pool import Pool
    from trioserver._tasks._workers import TaskWorkers

logger = logging.getLogger("trioserver.server")


@final
class Alone:
    """The whole of a server in one process (`_controls.Controls`, `_server.Whole`).

    Args:
      stopping: How it ends.
      workers: Its task workers.
      start_anew: Reloads the event worker, which is to say the process; None where nobody can.
      notifier: Told of reloads and of the stop.
      stream_id: The id of the first connection.
      task_id: The id of the first task.
    """

    def __init__(
        self,
        stopping: Stopping,
        workers: TaskWorkers | None,
        start_anew: Callable[[], Awaitable[object]] | None = None,
        notifier: Notifier | None = None,
        *,
        stream_id: int = 1,
        task_id: int = 0,
    ) -> None:
        self._stopping = stopping
        self.workers = workers
        self._start_anew = start_anew
        self._notifier = notifier or Notifier("")
        self._reloads = Reloads()
        self._began = trio.current_time()
        # Ids that have not been used.
        self.stream_ids = itertools.count(stream_id)
        self.task_ids = itertools.count(task_id)
        # Set by the server, which is made later.
        self._connections: Connections
        self._pool: Pool | None = None

    async def run_reloads(self) -> None:
        """Do reloads when they are asked for, until cancelled."""
        await self._reloads.run(self._reload)

    def join(self, _server: Server, connections: Connections, pool: Pool | None) -> None:
        self._connections = connections
        self._pool = pool

    def statistics(self) -> ServerStatistics:
        tasks = TaskStatistics() if self._pool is None else self._pool.statistics()
        pid = os.getpid()
        uptime = trio.current_time() - self._began
        is_stopping = self._stopping.is_requested
        worker = EventWorkerStatistics(
            id=0,
            pid=pid,
            state="leaving" if is_stopping else "running",
            connections=len(self._connections),
            rss=rss_of(pid),
            uptime=uptime,
        )
        return ServerStatistics(
            connections=len(self._connections),
            pid=pid,
            uptime=uptime,
            event_workers=(worker,),
            is_reloading=self._reloads.is_reloading,
            is_stopping=is_stopping,
            **attrs.asdict(tasks, recurse=False),
        )

    def reload(self, *, only_task_workers: bool = False) -> None:
        if self._stopping.hands_over:
            return  # the program that takes over loads the code of then
        if self._stopping.is_requested:
            raise RuntimeError("the server is stopping: it is not reloaded")
        if only_task_workers:
            self._task_workers  # noqa: B018  # which says so if there are none
        elif self._start_anew is None:
            raise RuntimeError(
                "this server is a part of another program: it can reload its task workers alone"
            )
        self._reloads.request(only_task_workers=only_task_workers)

    @property
    def on_worn_out(self) -> Callable[[], object] | None:
        """What an event worker calls after ``max_request`` frames; None where nobody can."""
        return None if self._start_anew is None else self._replace_worn_out

    def shutdown(self) -> None:
        self._notifier.stopping()
        self._stopping.request()

    def cancel(self, task_id: int) -> bool:
        return self._pool is not None and self._pool.cancel(task_id)

    async def scale(self, task_worker_num: int) -> None:
        if self._stopping.is_requested:
            raise RuntimeError("the server is stopping: its task workers stay as many as they are")
        await self._task_workers.scale(task_worker_num)

    async def stack(self, task_id: int) -> str:
        return await self._task_workers.stack(task_id)

    def send_message(self, worker_id: int | None, body: bytes) -> None:
        """Send to nobody: there is no other one, even if ``worker_num`` says so."""
        del body
        if worker_id is not None:
            raise ValueError(f"worker_id must be that of another event worker: {worker_id!r}")

    def _replace_worn_out(self) -> None:
        if not self._stopping.is_requested:
            logger.info("reloading after max_request frames")
            self.reload()

    async def _reload(self, only_task_workers: bool) -> None:  # noqa: FBT001  # see `Reloads.run`
        self._notifier.reloading()
        await self._do_reload(only_task_workers=only_task_workers)
        if not self._stopping.is_requested:
            self._notifier.ready("reloaded")

    async def _do_reload(self, *, only_task_workers: bool) -> None:
        if not only_task_workers:
            assert self._start_anew is not None, "a request would have been refused"
            await self._start_anew()
            return
        try:
            await self._task_workers.reload()
        except AppError as exc:
            log_app_error(logger, "the reload ends here, old task workers go on", exc)

    @property
    def _task_workers(self) -> TaskWorkers:
        if self.workers is None:
            raise RuntimeError("task_worker_num is 0: this server has no task workers")
        return self.workers
