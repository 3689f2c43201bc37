"""Apps that real servers run for measurements, which then ask them things.

A question is the name of a method and its arguments, as JSON in one line; so is the answer.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from typing import TYPE_CHECKING

from benchmarks._work import nap, same
from trioserver import EofFraming

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trioserver import Completion, Connection, Server, Task


class Asked:
    """Its tasks give back what they got."""

    framing = EofFraming(b"\r\n")

    def __init__(self) -> None:
        self._heard = 0
        self._waits: list[float] = []

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        name, *arguments = json.loads(data)
        answer = await getattr(self, name)(stream.server, *arguments)
        await stream.send_all(json.dumps(answer).encode() + b"\n")

    def on_task(self, task: Task) -> object:
        return same(task.data)

    async def on_finish(self, completion: Completion) -> None:
        # Peers unpickle every result, so results are looked at here too.
        assert completion.error is None
        self._heard += 1

    async def progress(self, server: Server) -> tuple[int, int, int]:  # noqa: ASYNC124  # as all
        """Tasks that were posted in the whole server, that run, and that have finished."""
        numbers = server.statistics()
        return numbers.posted, numbers.running, numbers.completed

    async def heard(self, _server: Server) -> int:  # noqa: ASYNC124  # as all are
        """How many tasks an ``on_finish`` of this process has heard of."""
        return self._heard

    async def latencies(self, server: Server, count: int) -> list[float]:
        """Seconds that each of ``count`` tasks took, one after the other."""
        return [await _seconds_of(server, number) for number in range(count)]

    async def post(self, server: Server, size: int) -> None:  # noqa: ASYNC124  # as all are
        """From now on post tasks of ``size`` bytes, or a number if that is 0."""
        server.start_soon(self._post_all, server, bytes(size) or 1)

    async def post_by_app(self, server: Server, size: int) -> None:  # noqa: ASYNC124  # as all are
        """The same; the app's ``on_finish`` hears of them, and not one that is given with each."""
        server.start_soon(self._post_all_by_app, server, bytes(size) or 1)

    async def queue(self, server: Server, count: int, size: int) -> None:
        """Post ``count`` tasks, each of so many bytes of its own."""
        for _ in range(count):
            await server.task(os.urandom(size))

    async def run_tasks(self, server: Server, count: int) -> float:
        """Seconds that so many take in one call."""
        began = time.perf_counter()
        completions = await server.run_tasks(itertools.repeat(1, count))
        assert all(completion.error is None for completion in completions)
        return time.perf_counter() - began

    async def _post_all(self, server: Server, data: object) -> None:
        while True:
            await server.task(data, on_finish=self.on_finish)

    async def _post_all_by_app(self, server: Server, data: object) -> None:
        while True:
            await server.task(data)


class SeedJob(Asked):
    """Posts a task for each ``PING`` and answers at once."""

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        if data == b"PING":
            await stream.server.task(1)
        elif data.startswith(b"["):
            await super().on_receive(stream, data)
            return
        # Also redis-benchmark's question for settings, which no answer satisfies.
        await stream.send_all(b"+PONG\r\n")


class Posting(Asked):
    """Posts tasks for as long as it lives, in each event worker."""

    async def on_worker_start(self, server: Server) -> None:
        await self.post_by_app(server, 0)


class Napping(Asked):
    """Its tasks wait for as many seconds as they are told."""

    def on_task(self, task: Task) -> object:
        return nap(task.data)

    async def on_finish(self, completion: Completion) -> None:
        assert completion.error is None
        self._waits.append(completion.waited)

    async def post_naps(self, server: Server, naps: Sequence[float]) -> None:  # noqa: ASYNC124
        """Post such tasks in turn from now on."""
        server.start_soon(self._post_naps, server, itertools.cycle(naps))

    async def waits(self, _server: Server) -> list[float]:  # noqa: ASYNC124  # as all are
        """Seconds that each waited which has ended since this was asked last."""
        waits, self._waits = self._waits, []
        return waits

    async def _post_naps(self, server: Server, naps: Iterable[float]) -> None:
        for seconds in naps:
            await server.task(seconds, on_finish=self.on_finish)


class Gated(Asked):
    """A task that is a text lasts as long as there is such a file."""

    def on_task(self, task: Task) -> object:
        while isinstance(task.data, str) and os.path.exists(task.data):
            time.sleep(0.01)
        return same(task.data)

    async def block(self, server: Server, gate: str) -> None:
        """Keep each task worker busy while there is that file."""
        for number in range(server.settings.task_worker_num):
            await server.task(gate, task_worker=number)


async def _seconds_of(server: Server, value: int) -> float:
    began = time.perf_counter()
    await server.run_task(value)
    return time.perf_counter() - began
