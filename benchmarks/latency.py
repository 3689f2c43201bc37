"""One task at a time: how long its caller waits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import trio
import trio_parallel

from benchmarks import _durations
from benchmarks._meter import Meter, quantile
from benchmarks._ours import settings, with_server
from benchmarks._parts import Parts
from benchmarks._pools import EXECUTOR, LOKY, MISSING, PEBBLE, PLAIN, POOL, open_pool
from benchmarks._real import served
from benchmarks._suite import OURS, Case, Figure, Goal
from benchmarks._swoole import SWOOLE, latencies
from benchmarks._work import Same, same

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trioserver import Server

WORKERS: Final = 2
_WARM_UP: Final = 100
_PER_SECOND: Final = 2000
"""Tasks of a measurement for each second that it may take, or a bit more."""
MANAGED: Final = "trioserver, through a manager"
_QUANTILES: Final = {"p50": 0.5, "p99": 0.99}


def _count() -> int:
    return round(_PER_SECOND * _durations.SECONDS)


def _figures(seconds: list[float], meter: Meter) -> dict[str, Figure]:
    cpu = meter.cpu(len(seconds))
    return {name: Figure(quantile(seconds, share) * 1e6, cpu) for name, share in _QUANTILES.items()}


async def _one_by_one(run: Callable[[int], Awaitable[object]]) -> dict[str, Figure]:
    for number in range(_WARM_UP):
        await run(number)
    meter = Meter()
    seconds = []
    for number in range(_count()):
        began = time.perf_counter()
        await run(number)
        seconds.append(time.perf_counter() - began)
    return _figures(seconds, meter)


def ours() -> dict[str, Figure]:
    async def measure(server: Server) -> dict[str, Figure]:
        return await _one_by_one(server.run_task)

    return with_server(Same, settings(WORKERS, 1000), measure)


def managed() -> dict[str, Figure]:
    """One event worker of two; what it posts goes through the manager, as its results do."""
    with served("benchmarks._asked:Asked", worker_num=2, task_worker_num=WORKERS) as asker:
        asker.ask(f"latency {_WARM_UP}")
        meter = Meter()
        return _figures(asker.ask(f"latency {_count()}"), meter)


def plain() -> dict[str, Figure]:
    return trio.run(_one_by_one, lambda number: trio_parallel.run_sync(same, number))


def pool(name: str) -> dict[str, Figure]:
    with open_pool(name, WORKERS) as submit:
        for number in range(_WARM_UP):
            submit(same, number).result()
        meter = Meter()
        seconds = []
        for number in range(_count()):
            began = time.perf_counter()
            submit(same, number).result()
            seconds.append(time.perf_counter() - began)
        return _figures(seconds, meter)


def swoole() -> dict[str, Figure]:
    return _figures(*latencies(WORKERS, _count()))


def _cases() -> tuple[Case, ...]:
    peers = {
        OURS: Parts(ours),
        MANAGED: Parts(managed),
        PLAIN: Parts(plain),
        **{name: Parts(pool, name) for name in (EXECUTOR, LOKY, PEBBLE) if name not in MISSING},
        f"{POOL}.apply_async": Parts(pool, POOL),
        **({} if SWOOLE in MISSING else {SWOOLE: Parts(swoole)}),
    }
    return tuple(
        Case(
            f"latency-{quantile_name}",
            f"one task at a time, {quantile_name}",
            "µs",
            {name: parts.part(quantile_name) for name, parts in peers.items()},
            (Goal(0.4, 0.6, PLAIN, at_most=True),) if quantile_name == "p50" else (),
            is_lower_better=True,
        )
        for quantile_name in _QUANTILES
    )


CASES: Final = _cases()
