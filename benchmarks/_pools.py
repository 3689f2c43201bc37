"""The process pools that peers are, each with the same few verbs."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import trio
import trio_parallel

from benchmarks import _celery, _durations
from benchmarks._meter import Meter
from benchmarks._needs import SWOOLE, missing, need_module, need_swoole
from benchmarks._work import nap, same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks._suite import Figure

    Submit = Callable[..., "Promised"]

EXECUTOR: Final = "ProcessPoolExecutor"
LOKY: Final = "loky"
PEBBLE: Final = "Pebble"
POOL: Final = "multiprocessing.Pool"
CELERY: Final = "Celery with Redis"
PLAIN: Final = "trio_parallel.run_sync"
IMAP: Final = "Pool.imap, chunksize 1"
MAP: Final = f"{EXECUTOR}.map, chunksize 1"
AT_ONCE: Final = 10_000
"""Tasks that one call is given, where calls are given many."""
_ALL_WORKERS: Final = 0.1
"""Seconds of a task, several of which for each worker make a pool start all of them."""

MISSING: Final[Mapping[str, str]] = missing(
    {
        LOKY: partial(need_module, "loky"),
        PEBBLE: partial(need_module, "pebble"),
        CELERY: _celery.need_celery,
        SWOOLE: need_swoole,
    }
)
"""Peers that cannot be measured here, and why."""


class Promised(Protocol):
    """What `Submit` gives."""

    def result(self) -> Any: ...


class _Applied:
    """A future for those of multiprocessing."""

    def __init__(self, promised: Any) -> None:
        self.result = promised.get


@contextmanager
def open_pool(name: str, workers: int) -> Iterator[Submit]:
    """Start the pool of that name, with all of its workers; inside, submit to it."""
    spawn = multiprocessing.get_context("spawn")
    if name == EXECUTOR:
        with ProcessPoolExecutor(workers, mp_context=spawn) as executor:
            yield _warm(executor.submit, workers)
    elif name == LOKY:
        import loky  # noqa: PLC0415  # where it is missing, this peer is left out

        with loky.ProcessPoolExecutor(workers) as executor:
            yield _warm(executor.submit, workers)
    elif name == PEBBLE:
        import pebble  # noqa: PLC0415  # as loky

        with pebble.ProcessPool(workers, context=spawn) as pebbles:
            yield _warm(lambda fn, *args: pebbles.schedule(fn, args=args), workers)
    elif name == CELERY:
        with _celery.open_celery(workers) as delay:
            yield _warm(lambda fn, *args: _Applied(delay(fn, *args)), workers)
    else:
        with spawn.Pool(workers) as pool:
            yield _warm(lambda fn, *args: _Applied(pool.apply_async(fn, args)), workers)


def _warm(submit: Submit, workers: int) -> Submit:
    for promised in [submit(nap, _ALL_WORKERS) for _ in range(3 * workers)]:
        promised.result()
    return submit


def rate_of_pool(name: str, workers: int, in_flight: int, data: object) -> Figure:
    """Tasks a second that give back ``data``, ``in_flight`` of them at a time."""
    promised: deque[Promised] = deque()

    def run(seconds: float, submit: Submit) -> int:
        done = 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            while len(promised) < in_flight:
                promised.append(submit(same, data))
            promised.popleft().result()
            done += 1
        return done

    with open_pool(name, workers) as submit:
        run(_durations.warm_up(), submit)
        meter = Meter()
        figure = meter.rate(run(_durations.SECONDS, submit))
        while promised:
            promised.popleft().result()
    return figure


def rate_of_imap(workers: int, in_flight: int | None, data: object) -> Figure:
    """The same by ``Pool.imap`` with a chunk size of 1.

    Args:
      in_flight: None for as many as the pool takes, which knows no bound.
    """
    is_over = False
    room = threading.Semaphore(in_flight or 1)

    def items() -> Iterator[object]:
        while not is_over:
            if in_flight is not None:
                room.acquire()
            yield data

    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        _warm(lambda fn, *args: _Applied(pool.apply_async(fn, args)), workers)
        results = pool.imap(same, items())

        def run(seconds: float) -> int:
            done = 0
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                next(results)
                done += 1
                room.release()
            return done

        run(_durations.warm_up())
        meter = Meter()
        figure = meter.rate(run(_durations.SECONDS))
        is_over = True
        room.release()
    return figure


def rate_of_map(workers: int, data: object) -> Figure:
    """The same by calls of ``ProcessPoolExecutor.map`` with many tasks each, sent one by one."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as executor:
        _warm(executor.submit, workers)

        return rate_of_calls(lambda: list(executor.map(same, itertools.repeat(data, AT_ONCE))))


def rate_of_calls(call: Callable[[], object]) -> Figure:
    """Tasks a second by ``call``, which has `AT_ONCE` of them run."""

    def run(seconds: float) -> int:
        done = 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            call()
            done += AT_ONCE
        return done

    run(_durations.warm_up())
    meter = Meter()
    return meter.rate(run(_durations.SECONDS))


def rate_of_plain(workers: int, data: object) -> Figure:
    """The same by one ``trio_parallel.run_sync`` for each, as many at a time as there are workers.

    It has no queue: more would but wait at the limiter.
    """

    async def main() -> Figure:
        limiter = trio.CapacityLimiter(workers)
        await _warm_plain(limiter, workers)
        done = 0

        async def run_all() -> None:
            nonlocal done
            while True:
                await trio_parallel.run_sync(same, data, limiter=limiter)
                done += 1

        async with trio.open_nursery() as running:
            for _ in range(workers):
                running.start_soon(run_all)
            await trio.sleep(_durations.warm_up())
            before = done
            meter = Meter()
            await trio.sleep(_durations.SECONDS)
            figure = meter.rate(done - before)
            running.cancel_scope.cancel()
        return figure

    return trio.run(main)


async def _warm_plain(limiter: trio.CapacityLimiter, workers: int) -> None:
    async with trio.open_nursery() as warming:
        for _ in range(workers):
            warming.start_soon(_nap_once, limiter)


async def _nap_once(limiter: trio.CapacityLimiter) -> None:
    await trio_parallel.run_sync(nap, _ALL_WORKERS, limiter=limiter)
