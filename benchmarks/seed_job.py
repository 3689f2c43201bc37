"""The seed's job: each request posts a task and is answered at once, over 50 connections.

Nothing is pinned: the server's processes and the load generator share all cores, as they would.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from shutil import which
from typing import TYPE_CHECKING, Final

from benchmarks import _durations
from benchmarks._meter import Meter
from benchmarks._parts import Parts
from benchmarks._real import Asker, served
from benchmarks._suite import OURS, Case, Figure, Goal

if TYPE_CHECKING:
    from collections.abc import Iterator

TASK_WORKERS: Final = 4
_PER_SECOND: Final = 50_000
"""Requests of a measurement for each second that it may take; with slow peers it takes longer."""
_WARM_UP: Final = 5_000
_LOAD: Final = ("-t", "ping_inline", "-c", "50", "-P", "16", "--csv")

THREE: Final = "trioserver, 3 event workers"
EXECUTOR: Final = "uvloop Protocol + ProcessPoolExecutor"
ECHO: Final = "uvloop Protocol, no tasks"

MISSING: Final = (
    {} if find_spec("uvloop") else dict.fromkeys((EXECUTOR, ECHO), "no module named 'uvloop'")
)


def ours(event_workers: int) -> dict[str, Figure]:
    settings = {
        "worker_num": event_workers,
        "task_worker_num": TASK_WORKERS,
        # Executors have no bound, and neither has Swoole's task queue.
        "max_queued_tasks": 1_000_000,
    }
    with served("benchmarks._asked:SeedJob", **settings) as asker:
        return _measure(asker)


def on_uvloop(task_workers: int) -> dict[str, Figure]:
    with _uvloop(task_workers) as asker:
        return _measure(asker)


@contextmanager
def _uvloop(task_workers: int) -> Iterator[Asker]:
    command = [sys.executable, "-m", "benchmarks._seed_uvloop", str(task_workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603  # of ours
        try:
            assert process.stdout is not None
            asker = Asker(int(process.stdout.readline()))
            try:
                yield asker
            finally:
                asker.close()
        finally:
            # Its workers notice, or are ended with the measurement.
            process.kill()


def _measure(asker: Asker) -> dict[str, Figure]:
    _load(asker.port, _WARM_UP)
    _wait_finished(asker)
    before = asker.ask("progress")[0]
    meter = Meter()
    requests = round(_PER_SECOND * _durations.SECONDS)
    rate = _load(asker.port, requests)
    answered = time.perf_counter()
    _wait_finished(asker)
    last = time.perf_counter() - answered
    posted = asker.ask("progress")[0] - before
    finished = meter.rate(posted) if posted else meter.rate(requests)
    return {
        "requests": Figure(rate, finished.cpu),
        "finished": finished,
        "last": Figure(last, finished.cpu),
    }


def _wait_finished(asker: Asker) -> None:
    while True:
        posted, finished = asker.ask("progress")
        if posted == finished:
            return
        time.sleep(0.005)


def _load(port: int, requests: int) -> float:
    """Send so many; how many were answered a second."""
    command = ["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "-n", str(requests), *_LOAD]
    said = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  # see above
    for name, rate, *_ in csv.reader(said.stdout.splitlines()):
        if name == "PING_INLINE":
            return float(rate)
    raise RuntimeError(f"redis-benchmark told no rate: {said.stdout}{said.stderr}")


def _cases() -> tuple[Case, ...]:
    with_tasks = {
        OURS: Parts(ours, 1),
        THREE: Parts(ours, 3),
        **({} if EXECUTOR in MISSING else {EXECUTOR: Parts(on_uvloop, TASK_WORKERS)}),
    }
    echo = {} if ECHO in MISSING else {ECHO: Parts(on_uvloop, 0)}
    job = f"the seed's job, pipeline 16, {TASK_WORKERS} task workers"
    return (
        Case(
            "seed-requests",
            f"{job}: requests answered",
            "requests/s",
            {name: parts.part("requests") for name, parts in (with_tasks | echo).items()},
            (Goal(2, 1, ECHO),),
        ),
        Case(
            "seed-tasks",
            f"{job}: tasks finished",
            "tasks/s",
            {name: parts.part("finished") for name, parts in with_tasks.items()},
        ),
        Case(
            "seed-last",
            f"{job}: from the last reply to the last finish",
            "s",
            {name: parts.part("last") for name, parts in with_tasks.items()},
            is_lower_better=True,
        ),
    )


CASES: Final = _cases() if which("redis-benchmark") else ()
