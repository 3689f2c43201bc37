"""A task pool over real task workers, and gates that their tasks wait at."""

from __future__ import annotations

import math
import os
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from serving import PATIENCE, is_running

from trioserver._app import load_app
from trioserver._pacing import Pacer
from trioserver._settings import Settings
from trioserver._stopping import Stopping
from trioserver._tasks._local import LocalTaskWorkers
from trioserver._tasks._pool_life import open_pool
from trioserver._tasks._workers import open_dispatcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trioserver._tasks._dispatcher import Dispatcher
    from trioserver._tasks._options import Options
    from trioserver._tasks._pool import Pool
    from trioserver._tasks._values import Completion


async def until(condition: Callable[[], object], what: str) -> None:
    """Poll ``condition`` until it holds."""
    with trio.move_on_after(PATIENCE) as scope:
        while not condition():  # noqa: ASYNC110  # other processes set no events
            await trio.sleep(0.002)
    assert not scope.cancelled_caught, f"never came true: {what}"


class Gate:
    """Tasks wait at it (`task_app.wait`) until they are let through."""

    def __init__(self, directory: Path, name: str = "gate") -> None:
        self.path = str(directory / name)
        os.mkfifo(self.path)
        self._fd = os.open(self.path, os.O_RDWR)

    @property
    def waiting(self) -> list[int]:
        """Pids of those who have come to the gate, in their order."""
        with suppress(FileNotFoundError):
            return [int(line) for line in Path(f"{self.path}.waiting").read_text().splitlines()]
        return []

    async def wait_for(self, count: int = 1) -> list[int]:
        """Until so many have come."""
        await until(lambda: len(self.waiting) >= count, f"{count} tasks at the gate")
        return self.waiting

    def let_through(self, count: int = 1) -> None:
        os.write(self._fd, b"x" * count)

    def close(self) -> None:
        os.close(self._fd)


class Workers:
    """Task workers, their pool, and the completions that came."""

    def __init__(self, app: str, settings: Settings) -> None:
        self.settings = settings
        self.stopping = Stopping(settings.max_wait_time)
        self.app = load_app(app, serves=False)
        self.engine = LocalTaskWorkers(self.app, settings, self.stopping)
        self.finished: list[Completion] = []
        self.dispatcher: Dispatcher
        self.pool: Pool

    async def on_finish(self, completion: Completion) -> None:
        self.finished.append(completion)

    async def post(self, function: Callable[..., object], *args: object) -> int:
        return await self.pool.task((function, *args), stream=None, on_finish=None)

    async def run(self, function: Callable[..., object], *args: object) -> Any:  # as tasks return
        return await self.pool.run_task((function, *args))

    async def post_with(
        self, options: dict[str, Any], function: Callable[..., object], *args: object
    ) -> int:
        return await self.pool.task(
            (function, *args), self.options(**options), stream=None, on_finish=None
        )

    def options(
        self,
        timeout: float | None = None,
        queue_timeout: float = math.inf,
        retries: int = 0,
        task_worker: int | None = None,
    ) -> Options:
        return self.pool.options(timeout, queue_timeout, retries, task_worker)

    async def outcome(self, function: Callable[..., object], *args: object) -> Completion:
        (completion,) = await self.pool.run_tasks([(function, *args)])
        return completion

    @property
    def pids(self) -> list[int]:
        """The processes that take tasks now."""
        workers = [slot.worker for slot in self.engine._current]
        return [
            worker.pid
            for worker in workers
            if worker is not None and worker.is_ready and worker.pid is not None
        ]

    async def until_whole(self, *dead: int) -> None:
        """Until all workers are ready, and none is one of those."""
        await until(
            lambda: len(set(self.pids) - set(dead)) == self.engine.task_worker_num,
            "the pool is whole",
        )

    async def until_gone(self, *pids: int) -> None:
        """Until those processes are dead."""
        await until(lambda: not any(map(is_running, pids)), f"processes {pids} are gone")


@asynccontextmanager
async def open_workers(
    number: int = 1, app: str = "task_app:App", max_wait_time: float = PATIENCE, **settings: Any
) -> AsyncIterator[Workers]:
    """Real task workers under a pool; a regular exit stops them gracefully."""
    workers = Workers(
        app, Settings(task_worker_num=number, max_wait_time=max_wait_time, **settings)
    )
    with trio.fail_after(2 * PATIENCE):
        async with (
            open_dispatcher(workers.engine) as workers.dispatcher,
            open_pool(
                workers.dispatcher,
                workers.on_finish,
                workers.app.on_progress,
                workers.settings,
                workers.stopping,
                Pacer(),
            ) as workers.pool,
        ):
            yield workers
            workers.stopping.request()
