"""Celery with a Redis of its own, on a free port of loopback, which keeps nothing on disk."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from benchmarks._needs import need_module, need_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE: Final = 30.0
_APP: Final = "benchmarks._celery_app"
_QUIET: Final = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR")


def need_celery() -> None:
    """Raises `PeerMissingError` if it lacks anything here."""
    for module in ("celery", "redis"):
        need_module(module)
    need_program("redis-server")


@contextmanager
def open_celery(workers: int) -> Iterator[Callable[..., Any]]:
    """Start it; inside, submit functions of `_work`, and get an ``AsyncResult``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ["BENCHMARK_BROKER"] = f"redis://127.0.0.1:{port}/0"
    redis = (
        *("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
        # A title would be written over its environment, where the mark of the measurement is.
        *("--set-proc-title", "no"),
    )
    worker = ("worker", "--pool", "prefork", "--concurrency", str(workers), *_QUIET)
    with ExitStack() as stack:
        stack.enter_context(_running("redis-server", *redis))
        _wait_accepts(port)
        stack.enter_context(_running(sys.executable, "-m", "celery", "-A", _APP, *worker))
        app = import_module(_APP)
        yield lambda fn, *args: getattr(app, fn.__name__).delay(*args)


@contextmanager
def _running(*command: str) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:  # noqa: S603  # peers
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            finally:
                process.kill()


def _wait_accepts(port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
