"""An asyncio Protocol that posts a task for each line and answers at once.

``python -m benchmarks.peers.aio_executor [--uvloop] --workers=N``: tasks go to that many processes
of an executor. It answers ``["progress"]`` as `benchmarks._asked.Asked` does.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks._work import nap, same
from benchmarks.peers._aio import run
from benchmarks.peers._lines import REPLY
from benchmarks.peers.aio_protocol import Connection, serve

if TYPE_CHECKING:
    from concurrent.futures import Future

_WORKERS: Final = "--workers="
_ALL_WORKERS: Final = 0.1
"""Seconds of a task, several of which for each worker make all of them start."""


class Job:
    """What the handler does, and how far its tasks are."""

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        self._executor = executor
        self._posted = self._finished = 0

    async def on_receive(self, connection: Connection, line: bytes) -> None:
        """Post and answer."""
        if line.startswith(b"["):
            progress = self._posted, self._posted - self._finished, self._finished
            await connection.send(json.dumps(progress).encode() + b"\n")
            return
        if line == b"PING":
            self._posted += 1
            self._executor.submit(same, 1).add_done_callback(self._finish)
        await connection.send(REPLY)

    def _finish(self, future: Future[int]) -> None:
        future.result()
        self._finished += 1


async def main() -> None:
    """Serve."""
    (workers,) = (int(arg[len(_WORKERS) :]) for arg in sys.argv if arg.startswith(_WORKERS))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as executor:
        list(executor.map(nap, [_ALL_WORKERS] * (3 * workers)))
        await serve(partial(Connection, Job(executor).on_receive))


if __name__ == "__main__":
    run(main)
