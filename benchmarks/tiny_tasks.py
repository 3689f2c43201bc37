"""Tasks that do nothing, a thousand in flight: what each costs, and how many go through.

Like is compared with like. There are two ways to have many tasks run. Either each is posted, and
each has a hearer of its own: ours by ``server.task`` with an ``on_finish``, those of peers by
``submit``, ``apply_async`` and Swoole's ``task``. Or one call takes an iterable and gives all
results: ``server.run_tasks``, ``ProcessPoolExecutor.map``, ``Pool.imap``; the latter two know no
bound, and have more in flight. Goals compare within a way.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import _durations
from benchmarks._apart import measure_apart
from benchmarks._meter import Meter
from benchmarks._needs import SWOOLE
from benchmarks._ours import rate_of_posted, rate_of_run_tasks, served
from benchmarks._pools import (
    CELERY,
    EXECUTOR,
    IMAP,
    LOKY,
    MAP,
    MISSING,
    PEBBLE,
    PLAIN,
    rate_of_imap,
    rate_of_map,
    rate_of_plain,
    rate_of_pool,
)
from benchmarks._suite import OURS, Case, Goal
from benchmarks._swoole import rate as rate_of_swoole

if TYPE_CHECKING:
    from benchmarks._suite import Figure

IN_FLIGHT: Final = 1000
WORKERS: Final = (1, 2, 4)
WITH_GOALS: Final = 2
"""The number of workers that goals are about."""
BY_APP: Final = "trioserver, the app's on_finish"
RUN_TASKS: Final = "trioserver, run_tasks"
MANAGED: Final = "trioserver, 2 event workers and a manager"


def ours(workers: int) -> Figure:
    return rate_of_posted(workers, IN_FLIGHT, 0)


def by_app(workers: int) -> Figure:
    return rate_of_posted(workers, IN_FLIGHT, 0, by_app=True)


def run_tasks(workers: int) -> Figure:
    return rate_of_run_tasks(workers, IN_FLIGHT)


def managed(workers: int) -> Figure:
    """Posted by two event workers at once, through their manager, as servers do."""
    settings = {"worker_num": 2, "task_worker_num": workers, "max_queued_tasks": IN_FLIGHT}
    with served("Posting", **settings) as asker:
        time.sleep(_durations.warm_up())
        *_, before = asker.ask("progress")
        meter = Meter()
        time.sleep(_durations.SECONDS)
        *_, finished = asker.ask("progress")
        return meter.rate(finished - before)


def pool(name: str, workers: int) -> Figure:
    return rate_of_pool(name, workers, IN_FLIGHT, 1)


def imap(workers: int) -> Figure:
    return rate_of_imap(workers, None, 1)


def mapped(workers: int) -> Figure:
    return rate_of_map(workers, 1)


def plain(workers: int) -> Figure:
    return rate_of_plain(workers, 1)


def swoole(workers: int) -> Figure:
    return rate_of_swoole(workers, IN_FLIGHT, 0)


def _case(workers: int) -> Case:
    # What takes long to start and is far behind, or close to another row of ours, is here only.
    is_whole = workers == WITH_GOALS
    pools = (EXECUTOR, LOKY, PEBBLE, *([CELERY] if is_whole else []))
    variants = {BY_APP: by_app, MANAGED: managed} if is_whole else {}
    return Case(
        f"tiny-tasks-{workers}",
        f"tiny tasks, {workers} worker{'s'[: workers > 1]}, {IN_FLIGHT:,} in flight",
        "tasks/s",
        {
            OURS: partial(measure_apart, ours, workers),
            RUN_TASKS: partial(measure_apart, run_tasks, workers),
            **{
                name: partial(measure_apart, measure, workers) for name, measure in variants.items()
            },
            **{name: partial(measure_apart, pool, name, workers) for name in pools},
            MAP: partial(measure_apart, mapped, workers),
            IMAP: partial(measure_apart, imap, workers),
            PLAIN: partial(measure_apart, plain, workers),
            SWOOLE: partial(measure_apart, swoole, workers),
        },
        (Goal(4, 2, SWOOLE), Goal(5, 2.5, IMAP, ours=RUN_TASKS), Goal(40, 25, MAP, ours=RUN_TASKS))
        if is_whole
        else (),
        missing=MISSING,
    )


CASES: Final = tuple(map(_case, WORKERS))
