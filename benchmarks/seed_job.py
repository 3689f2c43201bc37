"""The seed's job: each request posts a task and is answered at once, over 50 connections.

Nothing is pinned: the server's processes and the load generator share all cores, as they would. The
plain echo has no tasks, so its rate is all that there could be.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from benchmarks import _durations
from benchmarks._apart import measure_apart
from benchmarks._load import drive
from benchmarks._meter import Meter
from benchmarks._needs import missing, need_module
from benchmarks._ours import Asker, served
from benchmarks._servers import peer
from benchmarks._suite import OURS, Case, Figure, Goal

TASK_WORKERS: Final = 4
CONNECTIONS: Final = 50
PIPELINE: Final = 16
_PER_SECOND: Final = 50_000
"""Requests of a measurement for each second that it may take; with slow peers it takes longer."""
_WARM_UP: Final = 5_000

THREE: Final = "trioserver, 3 event workers"
EXECUTOR: Final = "uvloop Protocol + ProcessPoolExecutor"
ECHO: Final = "uvloop Protocol, no tasks"


def ours(event_workers: int) -> Figure:
    settings = {
        "worker_num": event_workers,
        "task_worker_num": TASK_WORKERS,
        # Executors have no bound, and neither has Swoole's task queue.
        "max_queued_tasks": 1_000_000,
    }
    with served("SeedJob", **settings) as asker:
        return _with_tasks(asker)


def on_executor() -> Figure:
    with (
        peer("aio_executor", "--uvloop", f"--workers={TASK_WORKERS}", core=None) as server,
        Asker(server) as asker,
    ):
        return _with_tasks(asker)


def echo() -> Figure:
    with peer("aio_protocol", "--uvloop", core=None) as server:
        _send(server.port, _WARM_UP)
        meter = Meter()
        requests = _requests()
        rate = _send(server.port, requests)
        return Figure(rate, meter.cpu(requests), is_disturbed=meter.is_disturbed)


def _with_tasks(asker: Asker) -> Figure:
    port = asker.server.port
    _send(port, _WARM_UP)
    before = _wait_finished(asker)
    meter = Meter()
    rate = _send(port, _requests())
    answered = time.perf_counter()
    posted = _wait_finished(asker) - before
    last = time.perf_counter() - answered
    finished = meter.rate(posted)
    more = {"tasks finished/s": finished.value, "s from last reply to last finish": last}
    return Figure(rate, finished.cpu, more, finished.is_disturbed)


def _requests() -> int:
    return round(_PER_SECOND * _durations.SECONDS)


def _send(port: int, requests: int) -> float:
    return drive(port, CONNECTIONS, PIPELINE, requests)


def _wait_finished(asker: Asker) -> int:
    """Wait until all that was posted has finished; how many that is."""
    while True:
        posted, _, finished = asker.ask("progress")
        if posted == finished:
            return int(posted)
        time.sleep(0.005)


CASES: Final = (
    Case(
        "seed-job",
        f"the seed's job, pipeline {PIPELINE}, {TASK_WORKERS} task workers",
        "requests/s",
        {
            OURS: partial(measure_apart, ours, 1),
            THREE: partial(measure_apart, ours, 3),
            EXECUTOR: partial(measure_apart, on_executor),
            ECHO: partial(measure_apart, echo),
        },
        (Goal(2, 1, ECHO),),
        missing=missing(dict.fromkeys((EXECUTOR, ECHO), partial(need_module, "uvloop"))),
    ),
)
