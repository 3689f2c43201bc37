"""A task pool over a model engine: no processes and no real time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from model_engine import ModelEngine
from trio.testing import wait_all_tasks_blocked

from trioserver._pacing import Pacer
from trioserver._settings import Settings
from trioserver._stopping import Stopping
from trioserver._tasks._pool_life import open_pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trioserver._net._connection import Connection
    from trioserver._tasks._pool import Pool
    from trioserver._tasks._values import Completion


class Bench:
    """A pool, its engine of one worker, and what ``on_finish`` got."""

    def __init__(self, max_wait_time: float = 5) -> None:
        self.engine = ModelEngine()
        self.stopping = Stopping(max_wait_time)
        self.finished: list[Completion] = []
        self.pool: Pool

    async def on_finish(self, completion: Completion) -> None:
        self.finished.append(completion)

    @asynccontextmanager
    async def open(
        self,
        on_finish: Callable[[Completion], Awaitable[None]] | None = None,
        *,
        on_progress: Callable[[int, object], Awaitable[None]] | None = None,
        max_queued_tasks: int = 100,
        **settings: Any,
    ) -> AsyncIterator[Pool]:
        async with open_pool(
            self.engine.dispatcher,
            on_finish or self.on_finish,
            on_progress,
            Settings(max_queued_tasks=max_queued_tasks, **settings),
            self.stopping,
            Pacer(),
        ) as self.pool:
            yield self.pool

    async def post(self, data: object = None) -> int:
        return await self.pool.task(data, stream=None, on_finish=None)

    def post_nowait(self, data: object = None) -> int:
        return self.pool.task_nowait(data, stream=None, on_finish=None)

    async def begin(self) -> None:
        """Have the worker begin a task, when everybody has done what there is to do."""
        await wait_all_tasks_blocked()
        self.engine.begin(0)

    async def run(self, count: int = 1) -> None:
        """Have the worker run tasks, and everybody hear of it."""
        for _ in range(count):
            await wait_all_tasks_blocked()
            self.engine.run(0)
        await wait_all_tasks_blocked()

    async def run_out(self) -> None:
        """Have the worker run whatever there is."""
        while True:
            await wait_all_tasks_blocked()
            if not self.engine.workers[0].orders:
                return
            self.engine.run(0)

    async def die(self) -> None:
        """The killed worker dies, and is replaced."""
        await wait_all_tasks_blocked()
        self.engine.die(0)
        self.engine.replace(0)

    def end_in_hand(self) -> None:
        """All that the worker has ends at once, and is reported in one message."""
        while self.engine.workers[0].orders:
            self.engine.begin(0)
            self.engine.finish(0)
        self.engine.send(0)

    @property
    def results(self) -> dict[int, object]:
        return {
            completion.task_id: completion.error or completion.result
            for completion in self.finished
        }


class FakeStream:
    """What a pool knows of a connection."""

    is_closed = False


def as_connection(stream: FakeStream) -> Connection:
    return cast("Connection", stream)
