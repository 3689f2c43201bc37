"""Our tasks: ``python -m trioserver``, with an app that posts what it is asked to post.

So what is measured is what is deployed, in a process of its own with all that it does there; peers,
which are libraries, run in the measuring process.
"""

from __future__ import annotations

import json
import socket
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import _durations
from benchmarks._meter import Meter
from benchmarks._pools import AT_ONCE, rate_of_calls
from benchmarks._servers import Server
from benchmarks.served import Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Self

    from benchmarks._suite import Figure


class Asker:
    """A client of `_asked.Asked`, or of a peer that answers such questions."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        self._answers: IO[bytes] = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._answers.close()
        self._socket.close()

    def ask(self, name: str, *arguments: object) -> Any:
        """The answer."""
        self._socket.sendall(json.dumps([name, *arguments]).encode() + b"\r\n")
        return json.loads(self._answers.readline())


@contextmanager
def served(app: str, **settings: int | str) -> Iterator[Asker]:
    """``python -m trioserver benchmarks._asked:APP`` while inside."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    with (
        tempfile.TemporaryDirectory() as directory,
        Served(Path(directory), f"benchmarks._asked:{app}", *flags) as server,
        Asker(Server(server.pid, server.wait_ready())) as asker,
    ):
        yield asker


def bounds(workers: int, in_flight: int) -> dict[str, int]:
    """The settings with which ``in_flight`` tasks are queued or running at a time."""
    return {"task_worker_num": workers, "max_queued_tasks": max(1, in_flight - workers)}


def rate_of_posted(workers: int, in_flight: int, size: int, *, by_app: bool = False) -> Figure:
    """Tasks a second that give back ``size`` bytes, or a number if that is 0.

    Args:
      by_app: Whether the app's ``on_finish`` hears of them, or one that is given with each.
    """
    with served("Asked", **bounds(workers, in_flight)) as asker:
        asker.ask("post_by_app" if by_app else "post", size)
        time.sleep(_durations.warm_up())
        before = asker.ask("heard")
        meter = Meter()
        time.sleep(_durations.SECONDS)
        return meter.rate(asker.ask("heard") - before)


def rate_of_run_tasks(workers: int, in_flight: int) -> Figure:
    """Tasks a second that give back a number, by calls of ``server.run_tasks`` with many each."""
    with served("Asked", **bounds(workers, in_flight)) as asker:
        return rate_of_calls(lambda: asker.ask("run_tasks", AT_ONCE))
