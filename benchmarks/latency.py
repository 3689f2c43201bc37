"""One task at a time: how long its caller waits."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

import trio
import trio_parallel

from benchmarks import _durations
from benchmarks._apart import measure_apart
from benchmarks._meter import Meter, quantile
from benchmarks._needs import SWOOLE
from benchmarks._ours import served
from benchmarks._pools import EXECUTOR, LOKY, MISSING, PEBBLE, PLAIN, POOL, open_pool
from benchmarks._suite import OURS, Case, Figure, Goal
from benchmarks._swoole import latencies
from benchmarks._work import same

WORKERS: Final = 2
_WARM_UP: Final = 100
_PER_SECOND: Final = 2000
"""Tasks of a measurement for each second that it may take, or a bit more."""
MANAGED: Final = "trioserver, through a manager"
APPLIED: Final = f"{POOL}.apply_async"


def _count() -> int:
    return round(_PER_SECOND * _durations.SECONDS)


def _figure(seconds: list[float], meter: Meter) -> Figure:
    p99 = quantile(seconds, 0.99) * 1e6
    cpu = meter.cpu(len(seconds))
    return Figure(quantile(seconds, 0.5) * 1e6, cpu, {"p99 µs": p99}, meter.is_disturbed)


def ours(event_workers: int) -> Figure:
    """Of several, one posts; that goes through their manager, as its results do."""
    with served("Asked", worker_num=event_workers, task_worker_num=WORKERS) as asker:
        asker.ask("latencies", _WARM_UP)
        meter = Meter()
        return _figure(asker.ask("latencies", _count()), meter)


def plain() -> Figure:
    async def main() -> Figure:
        for number in range(_WARM_UP):
            await trio_parallel.run_sync(same, number)
        meter = Meter()
        seconds = []
        for number in range(_count()):
            began = time.perf_counter()
            await trio_parallel.run_sync(same, number)
            seconds.append(time.perf_counter() - began)
        return _figure(seconds, meter)

    return trio.run(main)


def pool(name: str) -> Figure:
    with open_pool(name, WORKERS) as submit:
        for number in range(_WARM_UP):
            submit(same, number).result()
        meter = Meter()
        seconds = []
        for number in range(_count()):
            began = time.perf_counter()
            submit(same, number).result()
            seconds.append(time.perf_counter() - began)
        return _figure(seconds, meter)


def swoole() -> Figure:
    return _figure(*latencies(WORKERS, _count()))


CASES: Final = (
    Case(
        "latency",
        "one task at a time: from its post to its result",
        "p50 µs",
        {
            OURS: partial(measure_apart, ours, 1),
            MANAGED: partial(measure_apart, ours, 2),
            PLAIN: partial(measure_apart, plain),
            **{name: partial(measure_apart, pool, name) for name in (EXECUTOR, LOKY, PEBBLE)},
            APPLIED: partial(measure_apart, pool, POOL),
            SWOOLE: partial(measure_apart, swoole),
        },
        (Goal(0.4, 0.6, PLAIN, at_most=True),),
        is_lower_better=True,
        missing=MISSING,
    ),
)
