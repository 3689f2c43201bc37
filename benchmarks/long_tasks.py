"""Tasks of 1 ms, of 10 ms and of both under full load: how busy workers are kept, and who waits.

Tasks sleep, since four that burn would need four cores. The ideal is what loops of such tasks reach
in as many processes, with nothing between them. A task waits from its post until it begins.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio
import trio_parallel

from benchmarks import _durations
from benchmarks._apart import measure_apart
from benchmarks._meter import Meter, quantile
from benchmarks._ours import bounds, served
from benchmarks._pools import EXECUTOR, PLAIN, POOL, open_pool
from benchmarks._suite import OURS, Case, Figure, Goal
from benchmarks._work import nap

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Event

    from benchmarks._pools import Promised

WORKERS: Final = 4
IN_FLIGHT: Final = 64
LOADS: Final = {"1 ms": (0.001,), "10 ms": (0.01,), "1 and 10 ms": (0.001, 0.01)}
WITH_GOAL: Final = "10 ms"
IDEAL: Final = "plain loops"
APPLIED: Final = f"{POOL}.apply_async"
_LONGER: Final = 3
"""Times the usual duration: of few tasks, those at the edges would count for too much."""
_STARTING: Final = 1.0
"""Seconds within which the workers of any peer have started."""


def _figure(waits: list[float], meter: Meter) -> Figure:
    rate = meter.rate(len(waits))
    p50, p99 = (quantile(waits, share) * 1000 for share in (0.5, 0.99))
    return attrs.evolve(rate, more={"wait p50 ms": p50, "wait p99 ms": p99})


def _seconds(load: str) -> float:
    return (_LONGER if load == WITH_GOAL else 1) * _durations.SECONDS


def ours(load: str) -> Figure:
    with served("Napping", **bounds(WORKERS, IN_FLIGHT)) as asker:
        asker.ask("post_naps", LOADS[load])
        time.sleep(_durations.warm_up())
        asker.ask("waits")
        meter = Meter()
        time.sleep(_seconds(load))
        return _figure(asker.ask("waits"), meter)


def plain(load: str) -> Figure:
    """It has no queue, so a task waits for a worker from when it asks the limiter for one."""

    async def main() -> Figure:
        waits: list[float] = []
        limiter = trio.CapacityLimiter(WORKERS)
        naps = itertools.cycle(LOADS[load])

        async def run_all() -> None:
            while True:
                posted = time.monotonic()
                began = await trio_parallel.run_sync(nap, next(naps), limiter=limiter)
                waits.append(began - posted)

        async with trio.open_nursery() as running:
            for _ in range(IN_FLIGHT):
                running.start_soon(run_all)
            await trio.sleep(_STARTING)
            waits.clear()
            meter = Meter()
            await trio.sleep(_seconds(load))
            figure = _figure(waits, meter)
            running.cancel_scope.cancel()
        return figure

    return trio.run(main)


def pool(name: str, load: str) -> Figure:
    naps = itertools.cycle(LOADS[load])
    promised: deque[tuple[float, Promised]] = deque()
    waits: list[float] = []

    def run(seconds: float, submit: Callable[..., Promised]) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            while len(promised) < IN_FLIGHT:
                promised.append((time.monotonic(), submit(nap, next(naps))))
            posted, first = promised.popleft()
            waits.append(first.result() - posted)

    with open_pool(name, WORKERS) as submit:
        run(_durations.warm_up(), submit)
        waits.clear()
        meter = Meter()
        run(_seconds(load), submit)
        figure = _figure(waits, meter)
        while promised:
            promised.popleft()[1].result()
    return figure


def ideal(load: str) -> Figure:
    """As many processes as there are workers, each of which does nothing but such tasks."""
    spawn = multiprocessing.get_context("spawn")
    begin, results = spawn.Event(), spawn.SimpleQueue()
    args = LOADS[load], _seconds(load), begin, results
    processes = [spawn.Process(target=_loop, args=args) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    for _ in processes:
        results.get()
    meter = Meter()
    begin.set()
    figure = Figure(sum(results.get() for _ in processes), is_disturbed=meter.is_disturbed)
    for process in processes:
        process.join()
    return figure


def _loop(
    naps: tuple[float, ...],
    seconds: float,
    begin: Event,
    results: SimpleQueue[float],
) -> None:
    results.put(0.0)
    begin.wait()
    done = 0
    began = time.perf_counter()
    while time.perf_counter() < began + seconds:
        for each in naps:
            nap(each)
        done += len(naps)
    results.put(done / (time.perf_counter() - began))


def _case(load: str) -> Case:
    return Case(
        f"long-{load.replace(' ', '')}",
        f"tasks of {load}, {WORKERS} workers, {IN_FLIGHT} in flight",
        "tasks/s",
        {
            OURS: partial(measure_apart, ours, load),
            EXECUTOR: partial(measure_apart, pool, EXECUTOR, load),
            **({APPLIED: partial(measure_apart, pool, POOL, load)} if load == WITH_GOAL else {}),
            PLAIN: partial(measure_apart, plain, load),
            IDEAL: partial(measure_apart, ideal, load),
        },
        (Goal(0.99, 0.97, IDEAL),) if load == WITH_GOAL else (),
    )


CASES: Final = tuple(map(_case, LOADS))
