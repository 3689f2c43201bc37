"""Tasks without a server, for a Trio program that has its own way to the world."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

from trioserver._app import App, load_app
from trioserver._bare import Body
from trioserver._errors import AppError
from trioserver._importing import refuse_in_spawned_child
from trioserver._pacing import Pacer
from trioserver._settings import Settings
from trioserver._stopping import Stopping
from trioserver._tasks._local import LocalTaskWorkers
from trioserver._tasks._pool_life import open_pool
from trioserver._tasks._task_calls import TaskCalls
from trioserver._tasks._workers import open_dispatcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trioserver._tasks._pool import Pool
    from trioserver._tasks._statistics import TaskStatistics

logger = logging.getLogger("trioserver.tasks")


@final
class TaskPool(TaskCalls):
    """Task workers and their tasks, without a server; `open_task_pool` makes it."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._its_pool = pool
        self._settings = settings

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    def statistics(self) -> TaskStatistics:
        """What has become of tasks, in numbers as they are now."""
        return self._its_pool.statistics()

    @property
    def _pool(self) -> Pool:
        return self._its_pool

    def __repr__(self) -> str:
        return f"<TaskPool of {self._settings.task_worker_num} task workers>"


@asynccontextmanager
async def open_task_pool(app: object, settings: Settings | None = None) -> AsyncIterator[TaskPool]:
    """Task workers that run the tasks of ``app``, while inside.

    Tasks, completions and promises are those of a server; there are no connections, and nothing
    listens. A regular exit is a graceful stop: tasks go on for `Settings.max_wait_time`, and what
    is left then ends as `TaskCancelled`; every completion is delivered. Where the body raises or is
    cancelled, everything ends at once, and what it raised leaves as it is, in no group of ours.

    In a script, open it under ``if __name__ == "__main__":``, since every worker runs the script
    again.

    Args:
      app: As for `trioserver.serve`; ``on_task`` and ``on_finish`` are all that it needs.
      settings: Replace those that the app carries; ``task_worker_num`` must be at least 1.

    Raises:
      AppError: if the app is not one, or cannot start in a task worker, or there is no worker.
    """
    refuse_in_spawned_child()
    checked = app if isinstance(app, App) else load_app(app, serves=False)
    settings = settings or checked.settings or Settings()
    if not settings.task_worker_num:
        raise AppError("task_worker_num is 0: a task pool needs task workers")
    checked.check(settings)
    assert checked.on_finish is not None, "App.check has seen to it"
    stopping = Stopping(settings.max_wait_time)
    workers = LocalTaskWorkers(checked, settings, stopping)
    body = Body()
    cause: BaseException
    try:
        async with (
            open_dispatcher(workers) as dispatcher,
            open_pool(
                dispatcher, checked.on_finish, checked.on_progress, settings, stopping, Pacer()
            ) as pool,
        ):
            with body:
                yield TaskPool(pool, settings)
            stopping.request()
    except BaseExceptionGroup as group:
        cause = body.without_groups(group)
        if cause is group:
            raise
    else:
        return
    finally:
        if stopping.cut:
            logger.warning("%d tasks and callbacks were cut", stopping.cut)
    raise cause
