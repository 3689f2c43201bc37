"""From the command to the first connection that is served, and a graceful end."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from typing import Final

from benchmarks._apart import measure_apart
from benchmarks._meter import Meter
from benchmarks._suite import OURS, Case, Figure, Goal

TASK_WORKERS: Final = 4
MANAGED: Final = "trioserver, 3 event workers"


def ours(event_workers: int) -> Figure:
    """Seconds until it is ready: it listens, and its task workers have started."""
    command = [
        *(sys.executable, "-m", "trioserver", "benchmarks._asked:Asked"),
        *("--bind", "127.0.0.1:0"),
        *("--worker-num", str(event_workers), "--task-worker-num", str(TASK_WORKERS)),
    ]
    meter = Meter()
    began = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:  # noqa: S603  # ours
        try:
            assert server.stderr is not None
            port = 0
            for line in server.stderr:
                if found := re.search(r"listening on \S+:(\d+)$", line):
                    port = int(found[1])
                if ": ready in " in line:
                    break
            seconds = time.perf_counter() - began
            figure = Figure(seconds, meter.cpu(1))
            # A connection is the proof.
            socket.create_connection(("127.0.0.1", port)).close()
            server.send_signal(signal.SIGTERM)
            server.communicate()
        finally:
            server.kill()
    return figure


CASES: Final = (
    Case(
        "start",
        f"start to ready, {TASK_WORKERS} task workers",
        "s",
        {OURS: partial(measure_apart, ours, 1), MANAGED: partial(measure_apart, ours, 3)},
        (Goal(0.6, 1.0, at_most=True),),
        is_lower_better=True,
    ),
)
