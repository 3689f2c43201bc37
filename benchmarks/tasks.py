"""Tiny tasks on two workers: how many a second with many in flight, and one at a time."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final

import trio
import trio_parallel

from trioserver import Settings, serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trioserver import Completion, Connection, Server, Task

WORKERS: Final = 2
IN_FLIGHT: Final = 1000
SECONDS: Final = 1.0
ONE_BY_ONE: Final = 500


def same(value: int) -> int:
    """The task."""
    return value


class App:
    """The same task, posted."""

    async def on_receive(self, stream: Connection, data: bytes) -> None: ...

    def on_task(self, task: Task) -> object:
        return same(task.data)

    async def on_finish(self, completion: Completion) -> None: ...


SETTINGS: Final = Settings(bind="127.0.0.1:0", task_worker_num=WORKERS, max_queued_tasks=IN_FLIGHT)


def _with_server(measure: Callable[[Server], Awaitable[float]]) -> float:
    async def main() -> float:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve, App, SETTINGS)
            figure = await measure(server)
            server.shutdown()
        return figure

    return trio.run(main)


async def _post_all(server: Server) -> float:
    finished = 0
    posted = 0

    async def count(_completion: Completion) -> None:  # noqa: ASYNC124  # as it must be
        nonlocal finished
        finished += 1

    began = time.perf_counter()
    while time.perf_counter() < began + SECONDS:
        await server.task(posted, on_finish=count)
        posted += 1
    while finished < posted:  # noqa: ASYNC110  # a moment, at the end of a measurement
        await trio.sleep(0.001)
    return finished / (time.perf_counter() - began)


async def _run_one_by_one(server: Server) -> float:
    return await _latency(server.run_task)


async def _latency(run: Callable[[int], Awaitable[object]]) -> float:
    times = []
    for number in range(ONE_BY_ONE):
        began = time.perf_counter()
        await run(number)
        times.append(time.perf_counter() - began)
    return sorted(times)[ONE_BY_ONE // 2] * 1e6


def _executor_throughput() -> float:
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as executor:
        executor.submit(same, 0).result()
        futures: deque[Future[int]] = deque()
        done = 0
        began = time.perf_counter()
        while time.perf_counter() < began + SECONDS:
            while len(futures) < IN_FLIGHT:
                futures.append(executor.submit(same, done))
            futures.popleft().result()
            done += 1
        for future in futures:
            future.result()
        return (done + len(futures)) / (time.perf_counter() - began)


def _plain_throughput() -> float:
    async def main() -> float:
        done = 0
        limiter = trio.CapacityLimiter(WORKERS)

        async def run_until(end: float) -> None:
            nonlocal done
            while time.perf_counter() < end:
                await trio_parallel.run_sync(same, done, limiter=limiter)
                done += 1

        await trio_parallel.run_sync(same, 0)
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(WORKERS):
                nursery.start_soon(run_until, began + SECONDS)
        return done / (time.perf_counter() - began)

    return trio.run(main)


def _plain_latency() -> float:
    async def main() -> float:
        await trio_parallel.run_sync(same, 0)
        return await _latency(lambda number: trio_parallel.run_sync(same, number))

    return trio.run(main)


CASES: Final = [
    (
        f"tiny tasks, {WORKERS} workers, {IN_FLIGHT} in flight",
        "tasks/s",
        {
            "trioserver": lambda: _with_server(_post_all),
            "ProcessPoolExecutor": _executor_throughput,
            "trio_parallel.run_sync": _plain_throughput,
        },
    ),
    (
        "one task at a time",
        "µs, p50",
        {
            "trioserver run_task": lambda: _with_server(_run_one_by_one),
            "trio_parallel.run_sync": _plain_latency,
        },
    ),
]
