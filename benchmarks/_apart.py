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
from typing import TYPE_CHECKING, Any, Final, NoReturn

import attrs

from benchmarks import _durations
from benchmarks._suite import Figure

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT: Final = Path(__file__).parent.parent
_MARK: Final = "BENCHMARK_APART"
_PATIENCE: Final = 300.0
"""Seconds after which a measurement counts as hanging."""
_SOME_ERRORS: Final = 4000
"""The characters of its standard error that are worth telling."""


_answers = 1
"""Where figures go, in the process that measures."""


class MeasurementError(Exception):
    """A measurement did not come to its end; the message has what it wrote to standard error."""


def measure_apart(measure: Callable[..., dict[str, Figure]], *args: Any) -> dict[str, Figure]:
    """``measure(*args)`` in a fresh process.

    Args:
      measure: A function of a module.
      args: What JSON can carry.

    Raises:
      MeasurementError: if it fails, or takes longer than anything should.
    """
    token = secrets.token_hex(16)
    order = [_durations.SECONDS, measure.__module__, measure.__qualname__, args]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._apart"],
            cwd=_ROOT,
            # setproctitle would write titles over the mark.
            env={**os.environ, "PYTHONPATH": str(_ROOT), _MARK: token, "SPT_NOENV": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        limit = threading.Timer(_PATIENCE, process.kill)
        limit.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            # It stays open: by its end the other side knows that this process has died.
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        finally:
            limit.cancel()
            _end_marked(token)
            process.wait()
        if not answer:
            errors.seek(0)
            said = errors.read().decode(errors="replace")[-_SOME_ERRORS:]
            raise MeasurementError(f"{measure.__qualname__}{args} found nothing:\n{said}")
    return {name: Figure(**figure) for name, figure in json.loads(answer).items()}


def answer(figures: dict[str, Figure]) -> NoReturn:
    """Tell what was found, and have all processes of the measurement ended.

    It is called with what a measurement returns; one whose own end would take long calls it itself.
    """
    told = {name: attrs.asdict(figure) for name, figure in figures.items()}
    os.write(_answers, json.dumps(told).encode() + b"\n")
    while True:
        signal.pause()


def marked_here() -> list[int]:
    """The processes of the measurement that this process belongs to."""
    return _marked(os.environ[_MARK])


def _marked(token: str) -> list[int]:
    mark = f"{_MARK}={token}".encode()
    found = []
    for name in os.listdir("/proc"):
        # Those of others cannot be read, and some end meanwhile.
        with suppress(OSError):
            if name.isdecimal() and mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found.append(int(name))
    return found


def _end_marked(token: str) -> None:
    """End all of them, also those that are being started."""
    while left := [pid for pid in _marked(token) if pid != os.getpid()]:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Be the process that measures."""
    # What peers print, and what they read, is not to reach the other side.
    global _answers  # noqa: PLW0603  # as there is one standard output
    orders = open(os.dup(0), "rb")  # noqa: SIM115  # for as long as the process lives
    _answers = os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    _durations.SECONDS, module, name, args = json.loads(orders.readline())

    def end_with_parent() -> None:
        if not orders.read():
            _end_marked(os.environ[_MARK])
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    answer(getattr(import_module(module), name)(*args))


if __name__ == "__main__":
    # This module is another one when it is imported by its name, as those it calls do.
    import_module("benchmarks._apart").main()
