"""Tasks that are queued: what a long queue makes each task cost, and what it holds in memory."""

from __future__ import annotations

import os
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from benchmarks import _durations
from benchmarks._apart import answer
from benchmarks._meter import Meter
from benchmarks._ours import settings, with_server
from benchmarks._parts import one
from benchmarks._suite import OURS, Case, Figure, Goal
from benchmarks._work import Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trioserver import Completion, Server

WORKERS: Final = 2
LENGTHS: Final = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
PAYLOAD: Final = 100
REMEMBERED: Final = 200_000
"""Queued tasks whose memory is measured."""


async def _find_cost(length: int, server: Server) -> None:
    finished = posted = 0

    async def count(completion: Completion) -> None:  # noqa: ASYNC124  # as it must be
        nonlocal finished
        assert completion.error is None
        finished += 1

    async def post_all() -> None:
        nonlocal posted
        while True:
            await server.task(1, on_finish=count)
            posted += 1

    async with trio.open_nursery() as posting:
        async with _all_blocked(server):
            posting.start_soon(post_all)
            await _wait_until(lambda: posted >= length)
        # From here on, one is posted for each that ends.
        await trio.sleep(_durations.warm_up())
        before = finished
        meter = Meter()
        await trio.sleep(_durations.SECONDS)
        cpu = meter.cpu(finished - before)
        answer({OURS: Figure(cpu, cpu)})


async def _find_memory(server: Server) -> None:
    async with _all_blocked(server):
        before = _rss()
        for _ in range(REMEMBERED):
            await server.task(os.urandom(PAYLOAD))
        answer({OURS: Figure((_rss() - before) / REMEMBERED)})


@asynccontextmanager
async def _all_blocked(server: Server) -> AsyncIterator[None]:
    """Inside, no worker ends what it runs."""
    with tempfile.NamedTemporaryFile() as gate:
        for number in range(WORKERS):
            await server.task(gate.name, task_worker=number)
        await _wait_until(lambda: server.statistics().running == WORKERS)
        yield


async def _wait_until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # what it asks of is no event of ours
        await trio.sleep(0.01)


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def cost(length: int) -> NoReturn:
    """CPU time of each task, all processes together, while about ``length`` are queued."""
    _with_queue(length, partial(_find_cost, length))


def memory() -> NoReturn:
    """Bytes by which the event worker grows for each task that is queued."""
    _with_queue(REMEMBERED, _find_memory)


def _with_queue(length: int, find: Callable[[Server], Awaitable[None]]) -> NoReturn:
    # What is queued is not worth waiting for, so they answer for themselves, and end there.
    with_server(Gate, settings(WORKERS, length + 2 * WORKERS), find)
    raise AssertionError("it has answered")


def _peers() -> dict[str, Callable[[], Figure]]:
    *shorter, longest = LENGTHS
    return {
        OURS: one(cost, longest),
        **{f"{length:,} queued": one(cost, length) for length in shorter},
    }


CASES: Final = (
    Case(
        "queue-cost",
        f"cost of a task with {LENGTHS[-1]:,} queued, and with fewer",
        "µs of CPU",
        _peers(),
        (
            Goal(1.3, 1.8, "10 queued", at_most=True),
            Goal(1.3, 1.8, "1,000 queued", at_most=True),
        ),
        is_lower_better=True,
    ),
    Case(
        "queue-memory",
        f"memory of a queued task with {PAYLOAD} bytes",
        "bytes",
        {OURS: one(memory)},
        (Goal(500, 1024, at_most=True),),
        is_lower_better=True,
    ),
)
