"""Tasks that do nothing, a thousand in flight: what each costs, and how many go through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks._ours import rate_of_same
from benchmarks._parts import one
from benchmarks._pools import (
    EXECUTOR,
    LOKY,
    MISSING,
    PEBBLE,
    PLAIN,
    rate_of_imap,
    rate_of_plain,
    rate_of_pool,
)
from benchmarks._suite import OURS, Case, Goal

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._suite import Figure

IN_FLIGHT: Final = 1000
WORKERS: Final = (1, 2, 4)
BY_APP: Final = "trioserver, the app's on_finish"
IMAP: Final = "Pool.imap, chunksize 1"


def ours(workers: int) -> dict[str, Figure]:
    """Posted with an ``on_finish`` each."""
    return {OURS: rate_of_same(workers, IN_FLIGHT, 1, by_app=False)}


def ours_by_app(workers: int) -> dict[str, Figure]:
    """Heard of by the ``on_finish`` of the app."""
    return {BY_APP: rate_of_same(workers, IN_FLIGHT, 1, by_app=True)}


def pool(name: str, workers: int) -> dict[str, Figure]:
    return {name: rate_of_pool(name, workers, IN_FLIGHT, 1)}


def imap(workers: int) -> dict[str, Figure]:
    return {IMAP: rate_of_imap(workers, None, 1)}


def plain(workers: int) -> dict[str, Figure]:
    return {PLAIN: rate_of_plain(workers, 1)}


def _case(workers: int) -> Case:
    peers: dict[str, Callable[[], Figure]] = {
        OURS: one(ours, workers),
        BY_APP: one(ours_by_app, workers),
        **{
            name: one(pool, name, workers)
            for name in (EXECUTOR, LOKY, PEBBLE)
            if name not in MISSING
        },
        IMAP: one(imap, workers),
        PLAIN: one(plain, workers),
    }
    goals = (
        Goal(5, 2.5, IMAP),
        Goal(40, 25, EXECUTOR),
    )
    return Case(
        f"tiny-tasks-{workers}",
        f"tiny tasks, {workers} worker{'s'[: workers > 1]}, {IN_FLIGHT:,} in flight",
        "tasks/s",
        peers,
        goals if workers == 2 else (),
    )


CASES: Final = tuple(_case(workers) for workers in WORKERS)
