"""Fails if a fast path is lost: ``python -m benchmarks.guard``, in half a minute.

It compares with peers in the same run, by medians; CPU time per operation where that says what is
to be known, since on a shared machine it is steadiest. What must be reached lies about half way
between what is reached with a fast path and without it; both stand beside each case, as measured
when it was written. A case that fails gets a second chance. No peer needs what the tests do not.
"""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import _durations, latency, payloads, tiny_tasks
from benchmarks._apart import measure_apart
from benchmarks._closed_loop import figure_of
from benchmarks._cores import SERVER_CORE
from benchmarks._pools import EXECUTOR, PLAIN
from benchmarks._report import text_of
from benchmarks._servers import PLAIN_TRIO, serving
from benchmarks._suite import OURS, Case, Goal, run_case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from benchmarks._suite import Figure

ROUNDS: Final = 3
SECONDS: Final = 0.3
CONNECTIONS: Final = 50
TASK_WORKERS: Final = 2
LARGE: Final = 2**20
ONE_BY_ONE: Final = "trioserver, server.task"


def _ping(pipeline: int, name: str) -> Figure:
    # By a generator that is always there: another one gives other ratios.
    with serving(name) as server:
        return figure_of(server, CONNECTIONS, pipeline)


def _case(
    name: str, title: str, peers: dict[str, Callable[[], Figure]], wanted: dict[str, float]
) -> Case:
    goals = tuple(Goal(ratio, ratio, peer, by="cpu") for peer, ratio in wanted.items())
    return Case(name, title, "operations/s", peers, goals)


CASES: Final = (
    _case(
        "joined-replies",
        f"replies leave together: {CONNECTIONS} connections, pipeline 16",
        {name: partial(_ping, 16, name) for name in (OURS, PLAIN_TRIO)},
        {PLAIN_TRIO: 4.0},  # 9.2; 1.4 if each is written
    ),
    _case(
        "one-epoll",
        f"one epoll reads for all: {CONNECTIONS} connections, pipeline 1",
        {name: partial(_ping, 1, name) for name in (OURS, PLAIN_TRIO)},
        {PLAIN_TRIO: 1.2},  # 1.8; 0.74 if Trio waits for each
    ),
    _case(
        "many-tasks",
        "many tasks are handed ahead and travel together",
        {
            OURS: partial(measure_apart, tiny_tasks.ours, TASK_WORKERS),
            EXECUTOR: partial(measure_apart, tiny_tasks.pool, EXECUTOR, TASK_WORKERS),
            PLAIN: partial(measure_apart, tiny_tasks.plain, TASK_WORKERS),
        },
        # 8.2 to 16 and 8.7 to 10; 1.2 and 0.9 if none is handed ahead, 5.9 and 5.1 one by one.
        {EXECUTOR: 5.0, PLAIN: 6.5},
    ),
    _case(
        "tasks-together",
        "tasks that one call is given come in together",
        {
            OURS: partial(measure_apart, tiny_tasks.run_tasks, TASK_WORKERS),
            ONE_BY_ONE: partial(measure_apart, tiny_tasks.ours, TASK_WORKERS),
        },
        {ONE_BY_ONE: 1.2},  # 1.4; 1.0 if they come in one by one
    ),
    _case(
        "large-payloads",
        "payloads of 1 MiB go through shared memory",
        {
            OURS: partial(measure_apart, payloads.ours, LARGE),
            EXECUTOR: partial(measure_apart, payloads.pool, EXECUTOR, LARGE),
        },
        {EXECUTOR: 4.0},  # 8.9; 2.4 by the socket
    ),
)
AWAKE: Final = Case(
    "one-task",
    "both ends of a task that somebody waits for stay awake",
    "p50 µs",
    {
        OURS: partial(measure_apart, latency.ours, 1),
        PLAIN: partial(measure_apart, latency.plain),
    },
    (Goal(0.75, 0.75, PLAIN, at_most=True),),  # 0.46; 1.0 if they sleep
    is_lower_better=True,
)
"""On a single core nobody stays awake."""


def main(cases: Iterable[Case]) -> int:
    """1 if one of ``cases`` fails twice."""
    failed = [case for case in cases if not _is_as_fast(case)]
    if failed:
        print("once more:", ", ".join(case.name for case in failed), flush=True)
        failed = [case for case in failed if not _is_as_fast(case)]
    for case in failed:
        print(f"no longer as fast: {case.title}")
    return 1 if failed else 0


def _is_as_fast(case: Case) -> bool:
    result = run_case(case, ROUNDS, lambda _: None)
    print(f"{text_of(result)}\n", flush=True)
    return all(result.verdict(goal) == "goal met" for goal in case.goals)


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__).parse_args()
    # Whatever ends this program, the servers that it has started are to end with it.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    _durations.SECONDS = SECONDS
    sys.exit(main(CASES if SERVER_CORE is None else (*CASES, AWAKE)))
