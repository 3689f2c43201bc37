"""Tasks that do nothing, a thousand in flight: what each costs, and how many go through."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from benchmarks import _durations
from benchmarks._meter import Meter
from benchmarks._ours import rate_of_same
from benchmarks._parts import one
from benchmarks._pools import (
    CELERY,
    EXECUTOR,
    LOKY,
    MISSING,
    PEBBLE,
    PLAIN,
    rate_of_imap,
    rate_of_plain,
    rate_of_pool,
)
from benchmarks._real import served
from benchmarks._suite import OURS, Case, Goal
from benchmarks._swoole import SWOOLE
from benchmarks._swoole import rate as rate_of_swoole

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._suite import Figure

IN_FLIGHT: Final = 1000
WORKERS: Final = (1, 2, 4)
BY_APP: Final = "trioserver, the app's on_finish"
MANAGED: Final = "trioserver, 2 event workers and a manager"
IMAP: Final = "Pool.imap, chunksize 1"


def ours(workers: int) -> dict[str, Figure]:
    """Posted with an ``on_finish`` each."""
    return {OURS: rate_of_same(workers, IN_FLIGHT, 1, by_app=False)}


def ours_by_app(workers: int) -> dict[str, Figure]:
    """Heard of by the ``on_finish`` of the app."""
    return {BY_APP: rate_of_same(workers, IN_FLIGHT, 1, by_app=True)}


def managed(workers: int) -> dict[str, Figure]:
    """Posted by two event workers at once, through their manager, as servers do."""
    settings = {"worker_num": 2, "task_worker_num": workers, "max_queued_tasks": IN_FLIGHT}
    with served("benchmarks._asked:Posting", **settings) as asker:
        time.sleep(_durations.warm_up())
        before = asker.ask("progress")[1]
        meter = Meter()
        time.sleep(_durations.SECONDS)
        return {MANAGED: meter.rate(asker.ask("progress")[1] - before)}


def pool(name: str, workers: int) -> dict[str, Figure]:
    return {name: rate_of_pool(name, workers, IN_FLIGHT, 1)}


def imap(workers: int) -> dict[str, Figure]:
    return {IMAP: rate_of_imap(workers, None, 1)}


def plain(workers: int) -> dict[str, Figure]:
    return {PLAIN: rate_of_plain(workers, 1)}


def swoole(workers: int) -> dict[str, Figure]:
    return {SWOOLE: rate_of_swoole(workers, IN_FLIGHT, 0)}


def _case(workers: int) -> Case:
    peers: dict[str, Callable[[], Figure]] = {
        OURS: one(ours, workers),
        BY_APP: one(ours_by_app, workers),
        MANAGED: one(managed, workers),
        **{
            name: one(pool, name, workers)
            for name in (EXECUTOR, LOKY, PEBBLE, CELERY)
            if name not in MISSING
        },
        IMAP: one(imap, workers),
        PLAIN: one(plain, workers),
        **({} if SWOOLE in MISSING else {SWOOLE: one(swoole, workers)}),
    }
    goals = (
        Goal(4, 2, SWOOLE),
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
