"""Load as fast as a server answers: ``redis-benchmark``, or a generator of ours without it."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from benchmarks import _durations
from benchmarks._suite import Figure

if TYPE_CHECKING:
    from benchmarks._servers import Server

GENERATOR: Final = "redis-benchmark"
_GENERATOR_PATH: Final = shutil.which(GENERATOR)
_FEW: Final = 2_000
"""Requests that are enough to warm up, for each of some that travel together."""
_SOME: Final = 50
_PATIENCE: Final = 60.0


def load(server: Server, connections: int, pipeline: int) -> Figure:
    """Requests per second of ``server``, each with one reply, and the CPU time of one.

    Connecting costs the server CPU time too, so that of a shorter run is taken off.
    """
    few = max(_FEW * min(pipeline, 4), connections * pipeline * 2)
    # To warm up, and to learn the rate, not all of them are needed, which take long to connect.
    rate = drive(server.port, min(connections, _SOME), pipeline, few)
    many = max(few * 2, int(rate * _durations.SECONDS))
    began = server.cpu
    drive(server.port, connections, pipeline, few)
    between = server.cpu
    rate = drive(server.port, connections, pipeline, few + many)
    used = (server.cpu - between) - (between - began)
    return Figure(rate, used / many * 1e6)


def drive(port: int, connections: int, pipeline: int, requests: int) -> float:
    """Send so many; how many were answered a second."""
    program = [_GENERATOR_PATH or sys.executable]
    if _GENERATOR_PATH is None:
        program += ["-m", "benchmarks._closed_loop"]
    said = subprocess.run(  # noqa: S603  # the load generator
        [
            *program,
            *("-h", "127.0.0.1", "-p", str(port), "-t", "ping_inline", "--csv"),
            *("-n", str(requests), "-c", str(connections), "-P", str(pipeline)),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=_PATIENCE,
    )
    for row in csv.reader(said.stdout.splitlines()):
        if row[0] == "PING_INLINE":
            return float(row[1])
    raise RuntimeError(f"{program[0]} told no rate: {said.stdout or said.stderr!r}")
