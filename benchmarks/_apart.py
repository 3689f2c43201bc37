"""A measurement in a process of its own, so that no peer suffers from what another one has left.

It and all that descends from it carry a mark in their environment, by which their CPU time is
counted and by which they are ended in the end, wherever they went and whatever happened.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from benchmarks import _durations
from benchmarks._processes import bearing
from benchmarks._suite import Figure

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT: Final = Path(__file__).parent.parent
_MARK: Final = "BENCHMARK_APART"
_SOME_ERRORS: Final = 4000
"""The characters of its standard error that are worth telling."""


class MeasurementError(Exception):
    """A measurement did not come to its end; the message has what it wrote to standard error."""


def measure_apart(measure: Callable[..., Figure], *args: Any) -> Figure:
    """``measure(*args)`` in a fresh process.

    Args:
      measure: A function of a module.
      args: What JSON can carry.

    Raises:
      MeasurementError: if it fails.
    """
    token = secrets.token_hex(16)
    order = [_durations.SECONDS, measure.__module__, measure.__qualname__, args]
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks._apart"],
            cwd=_ROOT,
            # setproctitle would write titles over the mark.
            env={**os.environ, "PYTHONPATH": str(_ROOT), _MARK: token, "SPT_NOENV": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process:
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                # It stays open: by its end the other side knows that this process has died.
                process.stdin.write(json.dumps(order).encode() + b"\n")
                process.stdin.flush()
                found = process.stdout.readline()
            finally:
                _end_marked(token)
        if not found:
            errors.seek(0)
            said = errors.read().decode(errors="replace")[-_SOME_ERRORS:]
            raise MeasurementError(f"{measure.__qualname__}{args} found nothing:\n{said}")
    return Figure(**json.loads(found))


def marked_here() -> list[int]:
    """The processes of the measurement that this process belongs to."""
    return _marked(os.environ[_MARK])


def _marked(token: str) -> list[int]:
    return bearing(f"{_MARK}={token}")


def _end_marked(token: str) -> None:
    """End all of them, also those that are being started."""
    while left := [pid for pid in _marked(token) if pid != os.getpid()]:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Be the process that measures."""
    # What peers print, and what they read, is not to reach the other side.
    orders = open(os.dup(0), "rb")  # noqa: SIM115  # for as long as the process lives
    answers = os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    _durations.SECONDS, module, name, args = json.loads(orders.readline())

    def end_with_parent() -> None:
        if not orders.read():
            _end_marked(os.environ[_MARK])
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    figure: Figure = getattr(import_module(module), name)(*args)
    os.write(answers, json.dumps(attrs.asdict(figure)).encode() + b"\n")
    # Its own end might take long; the other side ends it.
    while True:
        signal.pause()


if __name__ == "__main__":
    # This module is another one when it is imported by its name, as those it calls do.
    import_module("benchmarks._apart").main()
