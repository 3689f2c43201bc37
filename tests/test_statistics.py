"""Statistics of a pool over real task workers: each number as its docstring says."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import attrs
import pytest
import recycled_app
import task_app
import trio
from serving import PATIENCE
from workers import Gate, Workers, open_workers, until

from trioserver import ServerStatistics, Settings, TaskStatistics, open_task_pool
from trioserver._tasks._statistics import Quantiles
from trioserver.testing import open_app

if TYPE_CHECKING:
    from pathlib import Path

    from trioserver import Connection, Task, TaskWorkerStatistics


def now(workers: Workers) -> TaskStatistics:
    statistics = workers.pool.statistics()
    assert statistics.is_balanced
    return statistics


def states(workers: Workers) -> list[str]:
    return [worker.state for worker in now(workers).workers]


async def test_a_new_pool() -> None:
    """Everything is 0, and each worker is idle."""
    async with open_workers(2) as workers:
        statistics = now(workers)

    numbers = attrs.asdict(statistics, recurse=False)
    found = numbers.pop("workers")
    assert numbers.pop("idle_workers") == 2
    assert numbers.pop("wait") == numbers.pop("run") == Quantiles()
    assert set(numbers.values()) == {0}
    for number, worker in enumerate(found):
        assert (worker.id, worker.state, worker.tasks_done, worker.running) == (
            number,
            "idle",
            0,
            (),
        )
    assert len({worker.pid for worker in found}) == 2


async def test_they_are_records() -> None:
    """What was asked for does not change, neither by the pool nor by who has it."""
    async with open_workers() as workers:
        before = now(workers)
        await workers.run(task_app.echo, 1)
        after = now(workers)

    assert (before.posted, after.posted) == (0, 1)
    assert (before.workers[0].tasks_done, after.workers[0].tasks_done) == (0, 1)
    for record, name in ((before, "posted"), (before.workers[0], "pid"), (before.run, "p50")):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(record, name, 7)


async def test_queued_and_running(gate: Gate) -> None:
    """A task is in one of the two until it ends."""
    async with open_workers(2) as workers:
        for _ in range(5):
            await workers.post(task_app.wait, gate.path)
        await gate.wait_for(2)
        statistics = now(workers)
        assert (statistics.posted, statistics.queued, statistics.running) == (5, 3, 2)
        assert (statistics.idle_workers, statistics.dead_workers) == (0, 0)
        assert states(workers) == ["busy", "busy"]
        gate.let_through(2)
        await until(lambda: now(workers).completed == 2, "two have ended")
        await gate.wait_for(4)
        statistics = now(workers)
        assert (statistics.posted, statistics.queued, statistics.running) == (5, 1, 2)
        gate.let_through(3)
        await until(lambda: now(workers).completed == 5, "all have ended")
        assert states(workers) == ["idle", "idle"]
        assert now(workers).idle_workers == 2


async def test_how_tasks_ended(gate: Gate) -> None:
    """Each is counted once, by its end."""
    async with open_workers(2) as workers:
        await workers.post(task_app.echo, 1)
        await workers.post(task_app.echo, 2)
        await workers.post(task_app.fail, ValueError, "no good")
        await workers.post_with({"timeout": 0.05}, task_app.slept, 600)
        await workers.post(task_app.leave, 3)
        await until(lambda: len(workers.finished) == 5, "they have ended")
        cancelled = await workers.post_with({"task_worker": 0}, task_app.wait, gate.path)
        await gate.wait_for()
        await workers.post_with({"task_worker": 0, "queue_timeout": 0.01}, task_app.pid)
        await until(lambda: len(workers.finished) == 6, "it has waited for too long")
        workers.pool.cancel(cancelled)
        await until(lambda: len(workers.finished) == 7, "all have ended")
        statistics = now(workers)

    assert statistics.posted == 7
    assert (statistics.queued, statistics.running, statistics.abandoned) == (0, 0, 0)
    assert statistics.completed == 2
    assert statistics.failed == 1
    assert statistics.timed_out == 2
    assert statistics.cancelled == 1
    assert statistics.crashed == 1
    assert statistics.retried == 0


async def test_retries_are_no_tasks(gate: Gate) -> None:
    """The attempts after the first one are counted apart; the task ends once."""
    async with open_workers() as workers:
        await workers.post_with({"retries": 2}, task_app.wait, gate.path)
        for attempt in (1, 2):
            pid = (await gate.wait_for(attempt))[-1]
            os.kill(pid, signal.SIGKILL)
            await gate.wait_for(attempt + 1)
            statistics = now(workers)
            assert (statistics.posted, statistics.running, statistics.crashed) == (1, 1, 0)
            assert statistics.retried == attempt
            (running,) = statistics.workers[0].running
            assert running.attempt == attempt + 1
        gate.let_through()
        await until(lambda: workers.finished, "it has ended")
        statistics = now(workers)

    assert workers.finished[0].attempt == 3
    assert (statistics.posted, statistics.completed, statistics.crashed) == (1, 1, 0)
    assert statistics.workers[0].tasks_done == 3


async def test_what_a_worker_runs_and_since_when(gate: Gate) -> None:
    """Its task, its attempt, and seconds that grow."""
    async with open_workers(2) as workers:
        began = time.monotonic()
        task_id = await workers.post_with({"task_worker": 1}, task_app.wait, gate.path)
        (pid,) = await gate.wait_for()
        first = now(workers).workers
        second = now(workers).workers
        most = time.monotonic() - began
        gate.let_through()

    assert first[0].running == ()
    (running,) = first[1].running
    assert (first[1].pid, running.task_id, running.attempt) == (pid, task_id, 1)
    assert 0 <= running.since <= second[1].running[0].since <= most


async def test_a_dead_worker_is_counted_until_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id and what it has done stay."""
    monkeypatch.setenv(recycled_app.HERE, str(tmp_path))
    async with open_workers(2, "recycled_app:App") as workers:
        await workers.pool.run_tasks([(task_app.echo, number) for number in range(10)])
        done = [worker.tasks_done for worker in now(workers).workers]
        pid = now(workers).workers[1].pid
        assert pid is not None
        (tmp_path / "die").write_text("7")
        os.kill(pid, signal.SIGKILL)
        await until(lambda: now(workers).dead_workers == 1, "the death is noticed")
        dead = now(workers).workers[1]
        assert (dead.id, dead.state, dead.running) == (1, "dead", ())
        assert now(workers).idle_workers == 1
        (tmp_path / "die").unlink()
        await until(lambda: now(workers).dead_workers == 0, "it is replaced")
        alive = now(workers).workers[1]
        assert [worker.tasks_done for worker in now(workers).workers] == done

    assert alive.state == "idle"
    assert alive.pid not in (None, pid)
    assert sum(done) == 10


async def test_memory_of_a_worker() -> None:
    """Bytes of RSS, of its process alone."""
    async with open_workers(2) as workers:
        before = [worker.rss for worker in now(workers).workers]
        size = 64 * 2**20
        await workers.pool.run_tasks([(task_app.echo, 1)])
        await workers.post_with({"task_worker": 1}, _keep, size)
        await until(lambda: workers.finished, "it has grown")
        after = [worker.rss for worker in now(workers).workers]

    grown = [
        then - first
        for first, then in zip(before, after, strict=True)
        if first is not None and then is not None
    ]
    assert grown[0] < size / 4
    assert size <= grown[1] < 2 * size


_kept: list[bytes] = []


def _keep(size: int) -> None:
    _kept.append(b"\1" * size)


async def test_the_age_of_the_oldest_in_line(gate: Gate) -> None:
    """It grows while that one waits, and is another's when that one runs."""
    async with open_workers() as workers:
        assert now(workers).oldest_queued == 0
        await workers.post(task_app.wait, gate.path)
        await gate.wait_for()
        began = time.monotonic()
        # Pinned ones are in line, too; the first of both counts, unless the worker has it in hand.
        for _ in range(3):
            await workers.post(task_app.echo, 1)
        await until(lambda: now(workers).oldest_queued > 0.05, "time passes")
        assert now(workers).oldest_queued <= time.monotonic() - began
        gate.let_through()
        await until(lambda: len(workers.finished) == 4, "all have ended")
        assert now(workers).oldest_queued == 0


async def test_quantiles_of_the_latest_tasks(gate: Gate) -> None:
    """Of how long they waited and ran, in seconds; earlier ones are forgotten."""
    async with open_workers() as workers:
        await workers.post(task_app.wait, gate.path)
        await gate.wait_for()
        began = time.monotonic()
        await workers.post(task_app.echo, 1)
        await until(lambda: time.monotonic() > began + 0.1, "time passes")
        gate.let_through()
        await until(lambda: len(workers.finished) == 2, "both have ended")
        statistics = now(workers)
        assert statistics.wait.max >= 0.1
        assert statistics.run.max >= 0.1
        waits = [completion.waited for completion in workers.finished]
        runs = [completion.ran for completion in workers.finished]
        assert statistics.wait.max == max(waits)
        assert statistics.run.max == max(runs)
        latest = await workers.pool.run_tasks([(task_app.echo, 1)] * 1000)
        statistics = now(workers)

    for found, values in (
        (statistics.wait, sorted(completion.waited for completion in latest)),
        (statistics.run, sorted(completion.ran for completion in latest)),
    ):
        assert found.max == values[-1]
        assert values[495] <= found.p50 <= values[505]
        assert values[895] <= found.p90 <= values[905]
        assert values[985] <= found.p99 <= values[995]


class App:
    """Counts connections, and posts what they say."""

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        await stream.server.task((task_app.echo, data))
        await stream.send_all(data)

    def on_task(self, task: Task) -> object:
        function, *args = task.data
        return function(*args)

    async def on_finish(self, completion: object) -> None:
        pass


async def test_statistics_of_a_server() -> None:
    """Those of its tasks, and how many connections are open."""
    with trio.fail_after(PATIENCE):
        async with open_app(App, task_worker_num=2) as running:
            server = running.server
            async with await running.connect() as client, await running.connect():
                await client.send(b"x")
                await client.receive()
                await until(lambda: server.statistics().completed == 1, "the task has ended")
                statistics = server.statistics()
                assert isinstance(statistics, ServerStatistics)
                assert (statistics.connections, statistics.posted) == (2, 1)
                assert _done(statistics.workers) == 1
                assert statistics.is_balanced
            await until(lambda: server.statistics().connections == 0, "the clients have left")


async def test_statistics_of_a_server_without_workers() -> None:
    """There are no tasks, and connections all the same."""
    async with open_app(App, in_memory=True) as running, await running.connect() as client:
        assert client is not None
        statistics = running.server.statistics()
        assert (statistics.connections, statistics.posted) == (1, 0)
        (worker,) = statistics.event_workers
        assert (worker.id, worker.pid, worker.state) == (0, os.getpid(), "running")
        assert worker.connections == 1


async def test_statistics_of_an_embedded_pool() -> None:
    """The same record, but for connections."""
    settings = Settings(task_worker_num=1, max_wait_time=PATIENCE)
    async with open_task_pool(App, settings) as pool:
        assert await pool.run_task((task_app.echo, 1)) == 1
        statistics = pool.statistics()

    assert type(statistics) is TaskStatistics
    assert (statistics.posted, statistics.completed, _done(statistics.workers)) == (1, 1, 1)
    after = pool.statistics()
    assert (after.posted, after.dead_workers, after.workers[0].pid) == (1, 1, None)


def _done(workers: tuple[TaskWorkerStatistics, ...]) -> int:
    return sum(worker.tasks_done for worker in workers)
