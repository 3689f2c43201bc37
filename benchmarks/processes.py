"""The same tiny tasks, posted by event worker processes through a manager, and without one.

The event workers are forked, and have the channel and the shared numbers of real ones; connections
and their own start are left out.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import time
import traceback
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import trio

from benchmarks import _durations
from benchmarks._suite import OURS, Case, Figure
from trioserver import Settings
from trioserver._app import load_app
from trioserver._pacing import Pacer
from trioserver._processes._channel import Channel
from trioserver._processes._guest import Desk, Guest
from trioserver._processes._remote import RemoteDispatcher, flushing
from trioserver._processes._room import Room
from trioserver._stopping import Stopping
from trioserver._tasks._local import LocalTaskWorkers
from trioserver._tasks._pool import Pool, open_pool
from trioserver._tasks._workers import open_dispatcher

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trioserver import Completion, Connection, Task
    from trioserver._app import App as LoadedApp
    from trioserver._processes._channel import Record
    from trioserver._tasks._entrance import PoolDispatcher
    from trioserver._tasks._statistics import TaskStatistics

    Measure = Callable[[Pool], Awaitable[float]]

WORKERS: Final = 2
IN_FLIGHT: Final = 1000
ONE_BY_ONE: Final = 500
SETTINGS: Final = Settings(task_worker_num=WORKERS, max_queued_tasks=IN_FLIGHT)
_IDS_EACH: Final = 10**9


class App:
    """Its task is next to nothing."""

    async def on_receive(self, stream: Connection, data: bytes) -> None: ...

    def on_task(self, task: Task) -> object:
        return task.data

    async def on_finish(self, completion: Completion) -> None: ...


async def _ignore(_completion: Completion) -> None: ...


async def post_all(pool: Pool) -> float:
    """Tasks a second, as many in flight as there is room for."""
    finished = posted = 0

    async def count(_completion: Completion) -> None:  # noqa: ASYNC124  # as it must be
        nonlocal finished
        finished += 1

    began = time.perf_counter()
    while time.perf_counter() < began + _durations.SECONDS:
        await pool.task(posted, stream=None, on_finish=count)
        posted += 1
    while finished < posted:  # noqa: ASYNC110  # a moment, at the end of a measurement
        await trio.sleep(0.001)
    return finished / (time.perf_counter() - began)


async def run_one_by_one(pool: Pool) -> float:
    """Microseconds that the median of them takes."""
    times = []
    for number in range(ONE_BY_ONE):
        began = time.perf_counter()
        await pool.run_task(number)
        times.append(time.perf_counter() - began)
    return sorted(times)[ONE_BY_ONE // 2] * 1e6


async def _measure_at(dispatcher: PoolDispatcher, measure: Measure) -> float:
    stopping = Stopping(SETTINGS.max_wait_time)
    async with open_pool(dispatcher, _ignore, None, SETTINGS, stopping, Pacer()) as pool:
        return await measure(pool)


def alone(measure: Measure) -> float:
    """One process that has pool and dispatcher."""

    async def main() -> float:
        workers = LocalTaskWorkers(_app(), SETTINGS, Stopping(SETTINGS.max_wait_time))
        async with open_dispatcher(workers) as dispatcher:
            return await _measure_at(dispatcher, measure)

    return trio.run(main)


def through_manager(measure: Measure, event_workers: int) -> list[float]:
    """What each event worker has measured at once."""
    room = Room()
    with ExitStack() as stack:
        stack.callback(room.close)
        ends: list[socket.socket] = []
        pids: list[int] = []
        for seat in range(event_workers):
            room.open_seat(seat)
            ours, theirs = map(stack.enter_context, socket.socketpair())
            ours.setblocking(False)
            theirs.setblocking(False)
            pid = os.fork()
            if not pid:
                _be_event_worker(room, seat, theirs, measure)
            theirs.close()
            ends.append(ours)
            pids.append(pid)
        figures = trio.run(_manage, room, ends)
        for pid in pids:
            os.waitpid(pid, 0)
    return figures


async def _manage(room: Room, ends: list[socket.socket]) -> list[float]:
    """Be the manager until all have told their figures, in records that mean nothing else."""
    figures: list[float] = []
    workers = LocalTaskWorkers(_app(), SETTINGS, Stopping(SETTINGS.max_wait_time))
    async with open_dispatcher(workers) as dispatcher, trio.open_nursery() as nursery:
        desk = Desk(dispatcher, SETTINGS, room, itertools.count(2**62))
        channels = []
        async with trio.open_nursery() as listening:
            for seat, end in enumerate(ends):
                channel = Channel(end, nursery, SETTINGS.max_task_size)
                guest = Guest(desk, channel, seat)

                def hear(records: list[Record], guest: Guest = guest) -> None:
                    for _, _, body in guest.hear(records):
                        figures.append(struct.unpack("d", body)[0])

                channels.append(channel)
                listening.start_soon(channel.listen, hear)
        for channel in channels:
            channel.hang_up()
        nursery.cancel_scope.cancel()
    return figures


def _be_event_worker(room: Room, seat: int, sock: socket.socket, measure: Measure) -> None:
    async def main() -> None:
        while not room.task_workers:  # noqa: ASYNC110  # until the manager has published something
            await trio.sleep(0.01)
        async with trio.open_nursery() as nursery:
            channel = Channel(sock, nursery, SETTINGS.max_task_size)
            ids = itertools.count(seat * _IDS_EACH)
            remote = RemoteDispatcher(channel, room, seat, ids, _no_statistics)

            def hear(records: list[Record]) -> None:
                remote.hear(records)

            nursery.start_soon(channel.listen, hear)
            async with flushing(remote):
                figure = await _measure_at(remote, measure)
            channel.say(99, body=struct.pack("d", figure))  # type: ignore[arg-type]  # of no meaning
            await channel.wait_sent()
            nursery.cancel_scope.cancel()

    try:
        trio.run(main)
    except Exception:  # noqa: BLE001  # nothing of the parent's may run here
        traceback.print_exc()
    finally:
        os._exit(0)


def _no_statistics() -> TaskStatistics:
    return None  # type: ignore[return-value]  # nobody reads them


def _app() -> LoadedApp:
    return load_app(f"{__name__}:App", serves=False)


CASES: Final = (
    Case(
        "manager-throughput",
        f"tiny tasks through a manager, {WORKERS} task workers, {IN_FLIGHT} in flight",
        "tasks/s",
        {
            OURS: lambda: Figure(alone(post_all)),
            "2 event workers and a manager": lambda: Figure(sum(through_manager(post_all, 2))),
            "1 event worker and a manager": lambda: Figure(sum(through_manager(post_all, 1))),
        },
    ),
    Case(
        "manager-latency",
        "one run_task at a time, in one process and through a manager",
        "µs, p50",
        {
            OURS: lambda: Figure(alone(run_one_by_one)),
            "1 event worker and a manager": lambda: Figure(through_manager(run_one_by_one, 1)[0]),
        },
        is_lower_better=True,
    ),
)
