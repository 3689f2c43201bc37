"""Tasks of 1 ms, of 10 ms and of both under full load: how busy workers are kept, and who waits.

Tasks sleep, since four that burn would need four cores. The ideal is what loops of such tasks reach
in as many processes, with nothing between them.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import attrs
import trio
import trio_parallel

from benchmarks import _durations
from benchmarks._meter import Meter, quantile
from benchmarks._ours import settings, with_server
from benchmarks._parts import Parts, one
from benchmarks._pools import EXECUTOR, PLAIN, POOL, open_pool
from benchmarks._suite import OURS, Case, Figure, Goal
from benchmarks._work import Nap, nap

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.queues import SimpleQueue
    from multiprocessing.synchronize import Event

    from benchmarks._pools import Promised
    from trioserver import Completion, Server

WORKERS: Final = 4
IN_FLIGHT: Final = 64
LOADS: Final = {"1 ms": (0.001,), "10 ms": (0.01,), "1 and 10 ms": (0.001, 0.01)}
IDEAL: Final = "plain loops"
_QUANTILES: Final = {"p50": 0.5, "p99": 0.99}
_LONGER: Final = 3
"""Times the usual duration: of few tasks, those at the edges would count for too much."""


@attrs.define
class _Tally:
    """What has ended in the time that is measured."""

    waits: list[float] = attrs.Factory(list)
    """Seconds between its post and its begin, of each."""

    def figures(self, meter: Meter) -> dict[str, Figure]:
        rate = meter.rate(len(self.waits))
        return {
            "rate": rate,
            **{
                name: Figure(quantile(self.waits, share) * 1000, rate.cpu)
                for name, share in _QUANTILES.items()
            },
        }


def ours(load: str) -> dict[str, Figure]:
    async def measure(server: Server) -> dict[str, Figure]:
        tally = _Tally()

        async def count(completion: Completion) -> None:  # noqa: ASYNC124  # as it must be
            assert completion.error is None
            tally.waits.append(completion.waited)

        async def post_all() -> None:
            for seconds in itertools.cycle(LOADS[load]):
                await server.task(seconds, on_finish=count)

        async with trio.open_nursery() as posting:
            posting.start_soon(post_all)
            figures = await _measure(tally)
            posting.cancel_scope.cancel()
        return figures

    return with_server(Nap, settings(WORKERS, IN_FLIGHT), measure)


def plain(load: str) -> dict[str, Figure]:
    """It has no queue, so a task waits for a worker from when it asks the limiter for one."""

    async def main() -> dict[str, Figure]:
        tally = _Tally()
        limiter = trio.CapacityLimiter(WORKERS)
        naps = itertools.cycle(LOADS[load])

        async def run_all() -> None:
            while True:
                posted = time.monotonic()
                began = await trio_parallel.run_sync(nap, next(naps), limiter=limiter)
                tally.waits.append(began - posted)

        async with trio.open_nursery() as running:
            for _ in range(IN_FLIGHT):
                running.start_soon(run_all)
            figures = await _measure(tally)
            running.cancel_scope.cancel()
        return figures

    return trio.run(main)


async def _measure(tally: _Tally) -> dict[str, Figure]:
    # At least as long as workers need to start.
    await trio.sleep(max(1.0, _durations.warm_up()))
    tally.waits.clear()
    meter = Meter()
    await trio.sleep(_LONGER * _durations.SECONDS)
    return tally.figures(meter)


def pool(name: str, load: str) -> dict[str, Figure]:
    naps = itertools.cycle(LOADS[load])
    promised: deque[tuple[float, Promised]] = deque()
    tally = _Tally()

    def run(seconds: float, submit: Callable[..., Promised]) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            while len(promised) < IN_FLIGHT:
                promised.append((time.monotonic(), submit(nap, next(naps))))
            posted, first = promised.popleft()
            tally.waits.append(first.result() - posted)

    with open_pool(name, WORKERS) as submit:
        run(_durations.warm_up(), submit)
        tally.waits.clear()
        meter = Meter()
        run(_LONGER * _durations.SECONDS, submit)
        figures = tally.figures(meter)
        while promised:
            promised.popleft()[1].result()
    return figures


def ideal(load: str) -> dict[str, Figure]:
    """As many processes as there are workers, each of which does nothing but such tasks."""
    spawn = multiprocessing.get_context("spawn")
    begin, results = spawn.Event(), spawn.SimpleQueue()
    args = LOADS[load], _LONGER * _durations.SECONDS, begin, results
    processes = [spawn.Process(target=_loop, args=args) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    for _ in processes:
        results.get()
    begin.set()
    rate = sum(results.get() for _ in processes)
    for process in processes:
        process.join()
    return {IDEAL: Figure(rate)}


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


def _cases(load: str) -> tuple[Case, ...]:
    peers = {
        OURS: Parts(ours, load),
        EXECUTOR: Parts(pool, EXECUTOR, load),
        f"{POOL}.apply_async": Parts(pool, POOL, load),
        PLAIN: Parts(plain, load),
    }
    name = load.replace(" ", "")
    title = f"tasks of {load}, {WORKERS} workers, {IN_FLIGHT} in flight"
    rates = {peer: parts.part("rate") for peer, parts in peers.items()}
    throughput = Case(
        f"long-{name}",
        title,
        "tasks/s",
        {**rates, IDEAL: one(ideal, load)},
        (Goal(0.99, 0.97, IDEAL),) if load == "10 ms" else (),
    )
    waits = (
        Case(
            f"long-{name}-{quantile_name}",
            f"{title}: wait for a worker, {quantile_name}",
            "ms",
            {peer: parts.part(quantile_name) for peer, parts in peers.items()},
            is_lower_better=True,
        )
        for quantile_name in _QUANTILES
    )
    return throughput, *waits


CASES: Final = tuple(case for load in LOADS for case in _cases(load))
