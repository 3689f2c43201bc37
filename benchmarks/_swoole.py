"""Swoole's tasks, where there is a PHP that has Swoole."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

from benchmarks import _durations
from benchmarks._meter import Meter
from benchmarks._needs import need_swoole
from benchmarks._suite import Figure

_SCRIPT: Final = Path(__file__).parent / "peers" / "swoole_tasks.php"
_NO_LOAD: Final = 0


def rate(workers: int, in_flight: int, size: int) -> Figure:
    """Tasks a second that give back ``size`` bytes, or a number if that is 0."""
    (tasks, seconds), meter = _run("rate", workers, in_flight, size, _durations.SECONDS)
    return Figure(tasks / seconds, meter.cpu(tasks))


def latencies(workers: int, count: int) -> tuple[list[float], Meter]:
    """Seconds that each of ``count`` tasks took, and a meter that began with them."""
    return _run("latency", workers, _NO_LOAD, 0, count)


def _run(mode: str, workers: int, in_flight: int, size: int, amount: float) -> tuple[Any, Meter]:
    numbers = (workers, in_flight, size, _durations.warm_up(), amount)
    command = [need_swoole(), str(_SCRIPT), mode, *map(str, numbers)]
    meter = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as php:  # noqa: S603  # ours
        try:
            assert php.stdout is not None
            for line in php.stdout:
                word, _, rest = line.strip().partition(" ")
                if word == "begin":
                    meter = Meter()
                elif word == "end" and meter is not None:
                    return json.loads(rest), meter
        finally:
            php.kill()
    raise RuntimeError(f"Swoole told no figure for {mode} {numbers}")
