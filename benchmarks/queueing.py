"""Tasks that are queued: what a long queue makes each task cost, and what it holds in memory."""

from __future__ import annotations

import tempfile
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import _durations
from benchmarks._apart import measure_apart
from benchmarks._meter import Meter
from benchmarks._ours import bounds, served
from benchmarks._suite import OURS, Case, Figure, Goal
from benchmarks.served import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks._ours import Asker

WORKERS: Final = 2
LENGTHS: Final = (10, 1_000, 100_000, 1_000_000)
PAYLOAD: Final = 100
REMEMBERED: Final = 200_000
"""Queued tasks whose memory is measured."""


def cost(length: int) -> Figure:
    """CPU time of each task, all processes together, while about ``length`` are queued."""
    with served("Gated", **bounds(WORKERS, length + 2 * WORKERS)) as asker:
        with _all_blocked(asker):
            asker.ask("post", 0)
            wait_until(lambda: asker.ask("progress")[0] >= length, f"{length:,} are queued")
        # From here on, one is posted for each that ends.
        time.sleep(_durations.warm_up())
        before = asker.ask("heard")
        meter = Meter()
        time.sleep(_durations.SECONDS)
        cpu = meter.cpu(asker.ask("heard") - before)
        return Figure(cpu, cpu)


def memory() -> Figure:
    """Bytes by which the event worker grows for each task that is queued."""
    with (
        served("Gated", **bounds(WORKERS, REMEMBERED + 2 * WORKERS)) as asker,
        _all_blocked(asker),
    ):
        before = asker.server.rss
        asker.ask("queue", REMEMBERED, PAYLOAD)
        return Figure((asker.server.rss - before) / REMEMBERED)


@contextmanager
def _all_blocked(asker: Asker) -> Iterator[None]:
    """Inside, no worker ends what it runs."""
    with tempfile.NamedTemporaryFile() as gate:
        asker.ask("block", gate.name)
        wait_until(lambda: asker.ask("progress")[1] == WORKERS, "all workers are busy")
        yield


def _peers() -> dict[str, Callable[[], Figure]]:
    *shorter, longest = LENGTHS
    return {
        OURS: partial(measure_apart, cost, longest),
        **{f"{length:,} queued": partial(measure_apart, cost, length) for length in shorter},
    }


CASES: Final = (
    Case(
        "queue-cost",
        f"cost of a task with {LENGTHS[-1]:,} queued, and with fewer",
        "µs of CPU",
        _peers(),
        (
            Goal(1.3, 1.8, "10 queued", at_most=True),
            Goal(1.3, 1.8, "1,000 queued", at_most=True),
        ),
        is_lower_better=True,
    ),
    Case(
        "queue-memory",
        f"memory of a queued task with {PAYLOAD} bytes",
        "bytes",
        {OURS: partial(measure_apart, memory)},
        (Goal(500, 1024, at_most=True),),
        is_lower_better=True,
    ),
)
