"""Fails if a fast path is lost: ``python -m benchmarks.guard``, in less than a minute.

It compares CPU time per operation with peers in one run, by medians, since that is steadiest on a
shared machine. What must be reached is about half of what is, or, where a lost fast path would not
cost as much, the middle between with and without it. A case that fails gets a second chance.
"""

from __future__ import annotations

import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import _durations, payloads, tiny_tasks
from benchmarks._apart import measure_apart
from benchmarks._closed_loop import figure_of
from benchmarks._pools import EXECUTOR, PLAIN
from benchmarks._report import text_of
from benchmarks._servers import PLAIN_TRIO, serving
from benchmarks._suite import OURS, Case, Goal, run_case

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._suite import Figure

ROUNDS: Final = 3
SECONDS: Final = 0.3
CONNECTIONS: Final = 50
PIPELINE: Final = 16
TASK_WORKERS: Final = 2


def _ping(pipeline: int, name: str) -> Figure:
    with serving(name) as server:
        return figure_of(server, CONNECTIONS, pipeline)


def _case(name: str, lost: str, peers: dict[str, Callable[[], Figure]], **at_least: float) -> Case:
    """Fails if ``lost`` is."""


CASES: Final = (
    Case(
        "replies",
        f"replies that leave together: {CONNECTIONS} connections, pipeline {PIPELINE}",
        "requests/s",
        {name: partial(_ping, PIPELINE, name) for name in (OURS, PLAIN_TRIO)},
        (Goal(2.4, 2.4, PLAIN_TRIO, by="cpu"),),
    ),
    Case(
        "reading",
        f"one epoll for all: {CONNECTIONS} connections",
        "requests/s",
        {name: partial(_ping, 1, name) for name in (OURS, PLAIN_TRIO)},
        (Goal(1, 1, PLAIN_TRIO, by="cpu"),),
    ),
    Case(
        "tiny-tasks",
        "many tasks in one message",
        "tasks/s",
        {
            OURS: partial(measure_apart, tiny_tasks.ours, TASK_WORKERS),
            EXECUTOR: partial(measure_apart, tiny_tasks.pool, EXECUTOR, TASK_WORKERS),
            PLAIN: partial(measure_apart, tiny_tasks.plain, TASK_WORKERS),
        },
        (Goal(6, 6, EXECUTOR, by="cpu"), Goal(4, 4, PLAIN, by="cpu")),
    ),
    Case(
        "payloads",
        "payloads of 1 MiB through shared memory",
        "tasks/s",
        {
            OURS: partial(measure_apart, payloads.ours, 2**20),
            EXECUTOR: partial(measure_apart, payloads.pool, EXECUTOR, 2**20),
        },
        (Goal(1, 1, EXECUTOR, by="cpu"),),
    ),
)


def main() -> int:
    """0 if all is as fast as it should be."""
    _durations.SECONDS = SECONDS
    failed = [case for case in CASES if not _is_reached(case)]
    if failed:
        print("a second chance for", ", ".join(case.name for case in failed), flush=True)
        failed = [case for case in failed if not _is_reached(case)]
    for case in failed:
        print(f"lost: {case.title}")
    return 1 if failed else 0


def _is_reached(case: Case) -> bool:
    result = run_case(case, ROUNDS, lambda _: None)
    print(f"{text_of(result)}\n", flush=True)
    return all(result.verdict(goal) == "goal met" for goal in case.goals)


if __name__ == "__main__":
    # Whatever ends this program, the servers that it has started are to end with it.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    sys.exit(main())
