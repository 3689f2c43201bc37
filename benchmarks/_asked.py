"""Apps that a real server runs for measurements, and what its clients ask of them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from benchmarks._work import same
from trioserver import EofFraming

if TYPE_CHECKING:
    from trioserver import Completion, Connection, Server, Task


class Asked:
    """Answers ``latency N``, with the seconds that each of N tasks took, and ``progress``.

    Its progress are the tasks that were posted in the whole server, and those that have finished.
    """

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        word, *rest = data.decode().split()
        if word == "latency":
            answer: object = [await _seconds_of(stream.server, n) for n in range(int(rest[0]))]
        else:
            assert word == "progress", data
            numbers = stream.server.statistics()
            answer = numbers.posted, numbers.completed
        await stream.send_all(json.dumps(answer).encode() + b"\n")

    def on_task(self, task: Task) -> object:
        return same(task.data)

    async def on_finish(self, completion: Completion) -> None:
        assert completion.error is None


class SeedJob(Asked):
    """Posts a task for each ``PING`` and answers at once."""

    framing = EofFraming(b"\r\n")

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        if data != b"PING":
            # Also redis-benchmark's question for settings, which no answer satisfies.
            await (super().on_receive(stream, data) if data == b"progress" else _pong(stream))
            return
        await stream.server.task(1)
        await _pong(stream)


class Posting(Asked):
    """Posts tasks for as long as it lives, in each event worker."""

    async def on_worker_start(self, server: Server) -> None:  # noqa: ASYNC124  # as it must be
        server.start_soon(_post_all, server)


async def _pong(stream: Connection) -> None:
    await stream.send_all(b"+PONG\r\n")


async def _seconds_of(server: Server, value: int) -> float:
    began = time.perf_counter()
    await server.run_task(value)
    return time.perf_counter() - began


async def _post_all(server: Server) -> None:
    while True:
        await server.task(1)
