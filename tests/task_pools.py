"""`trioserver.open_task_pool` with real workers, and the completions that came."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import check_app
import trio
from serving import PATIENCE, is_running
from workers import until

from trioserver import Settings, open_task_pool
from trioserver.testing import open_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trioserver import Completion, TaskPool
    from trioserver.testing import RunningApp


class Tasks:
    """A pool, whose tasks are functions and their arguments."""

    def __init__(self, pool: TaskPool) -> None:
        self.pool = pool
        self.finished: list[Completion] = []

    async def on_finish(self, completion: Completion) -> None:
        self.finished.append(completion)

    async def post(self, function: Callable[..., object], *args: object, **options: Any) -> int:
        return await self.pool.task((function, *args), on_finish=self.on_finish, **options)

    async def run(self, function: Callable[..., object], *args: object, **options: Any) -> Any:
        return await self.pool.run_task((function, *args), **options)

    async def outcome(
        self, function: Callable[..., object], *args: object, **options: Any
    ) -> Completion:
        (completion,) = await self.pool.run_tasks([(function, *args)], **options)
        return completion

    async def until_finished(self, count: int) -> dict[int, Completion]:
        """Until so many completions have come; by the ids of their tasks, and all different."""
        await until(lambda: len(self.finished) >= count, f"{count} completions")
        by_id = {completion.task_id: completion for completion in self.finished}
        assert len(by_id) == len(self.finished)
        return by_id

    @property
    def pids(self) -> list[int | None]:
        """The process of each worker, None for one that is being replaced."""
        return [worker.pid for worker in self.pool.statistics().workers]

    async def until_whole(self) -> list[int | None]:
        """Until all workers are there."""
        await until(lambda: self.pool.statistics().dead_workers == 0, "the pool is whole")
        return self.pids

    async def until_gone(self, *pids: int) -> None:
        """Until those processes are dead."""
        await until(lambda: not any(map(is_running, pids)), f"processes {pids} are gone")


@asynccontextmanager
async def open_tasks(
    number: int = 1, app: object = check_app.App, **settings: Any
) -> AsyncIterator[Tasks]:
    """A pool of so many workers; a regular exit stops it gracefully, and its ledger is right."""
    settings.setdefault("max_wait_time", PATIENCE)
    with trio.fail_after(2 * PATIENCE):
        async with open_task_pool(app, Settings(task_worker_num=number, **settings)) as pool:
            tasks = Tasks(pool)
            yield tasks
            assert pool.statistics().is_balanced


@asynccontextmanager
async def open_served(app: object, **settings: Any) -> AsyncIterator[RunningApp]:
    """A server of ``app`` on TCP with real workers; what hangs in it fails."""
    with trio.fail_after(2 * PATIENCE):
        async with open_app(app, **settings) as running:
            yield running
            assert running.server.statistics().is_balanced


def numbers_in(path: str) -> list[int]:
    """One a line, as tasks have written them (`check_app.write_id`)."""
    with open(path) as file:
        return [int(line) for line in file]


class Clock:
    """Measures how long something took, by the clock that deadlines go by."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began
