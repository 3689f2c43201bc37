"""Overload makes posters wait, and clients with them; nothing grows without bound."""

from __future__ import annotations

import pickle
import textwrap
from contextlib import suppress
from typing import TYPE_CHECKING

import check_app
import pytest
import task_app
import trio
import trio.testing
from serving import ServerProcess, wait_until
from task_pools import Tasks, open_served, open_tasks

from trioserver import Completion, Connection, EofFraming, Task, TaskFailed

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from workers import Gate

    StartServer = Callable[..., ServerProcess]


pytestmark = pytest.mark.usefixtures("form")


async def hold(tasks: Tasks, gate: Gate) -> int:
    """Have the only worker busy; the id of the task that holds it."""
    held = await tasks.post(task_app.wait, gate.path)
    await gate.wait_for()
    return held


async def test_a_full_queue_makes_posts_wait(gate: Gate) -> None:
    """C13: task waits for room, in line; task_nowait raises `trio.WouldBlock`, Trio's QueueFull."""
    async with open_tasks(max_queued_tasks=3) as tasks:
        held = await hold(tasks, gate)
        posted = [held] + [await tasks.post(task_app.echo, number) for number in range(3)]
        with pytest.raises(trio.WouldBlock):
            tasks.pool.task_nowait((task_app.echo, 3))

        async def post_more(number: int) -> None:
            posted.append(await tasks.post(task_app.echo, number))

        async with trio.open_nursery() as waiting:
            waiting.start_soon(post_more, 3)
            await trio.testing.wait_all_tasks_blocked()
            waiting.start_soon(post_more, 4)
            await trio.testing.wait_all_tasks_blocked()
            assert len(posted) == 4
            assert tasks.pool.statistics().posted == 4
            gate.let_through()
        ended = await tasks.until_finished(6)

    # Whoever was in line hears of its turn in any order; the turns themselves have one.
    posted.sort()
    assert posted == sorted(ended)
    assert [ended[task_id].result for task_id in posted[1:]] == [0, 1, 2, 3, 4]


async def test_a_post_that_is_cancelled_in_line_leaves_nothing(gate: Gate) -> None:
    """It was not accepted: no id, no run, no completion."""
    async with open_tasks(max_queued_tasks=1) as tasks:
        await hold(tasks, gate)
        await tasks.post(task_app.echo, 1)
        async with trio.open_nursery() as waiting:
            waiting.start_soon(tasks.post, task_app.echo, 2)
            await trio.testing.wait_all_tasks_blocked()
            waiting.cancel_scope.cancel()
        gate.let_through()
        await tasks.until_finished(2)
        assert await tasks.post(task_app.echo, 3) == 2
        ended = await tasks.until_finished(3)

    assert [ended[task_id].result for task_id in (1, 2)] == [1, 3]


async def test_waiting_callers_are_no_exception(gate: Gate) -> None:
    """run_task and run_tasks wait for room as task does; all get what they asked for."""
    async with open_tasks(max_queued_tasks=1) as tasks:
        await hold(tasks, gate)
        results: list[object] = []

        async def run(number: int) -> None:
            results.append(await tasks.run(task_app.echo, number))

        async with trio.open_nursery() as waiting:
            for number in range(5):
                waiting.start_soon(run, number)
            await trio.testing.wait_all_tasks_blocked()
            assert tasks.pool.statistics().posted == 2
            gate.let_through()
        outcomes = await tasks.pool.run_tasks((task_app.echo, number) for number in range(100))

    assert sorted(results) == [0, 1, 2, 3, 4]  # type: ignore[type-var]  # they are numbers
    assert [outcome.result for outcome in outcomes] == list(range(100))


async def test_the_queues_bytes_are_bounded(gate: Gate) -> None:
    """max_queued_bytes counts what has not ended; one that is larger waits for an empty queue."""
    small, large = bytes(400), bytes(2000)
    async with open_tasks(max_queued_bytes=1200) as tasks:
        held = await hold(tasks, gate)
        await tasks.post(task_app.echo, small)
        await tasks.post(task_app.echo, small)
        with pytest.raises(trio.WouldBlock):
            tasks.pool.task_nowait((task_app.echo, small))
        with pytest.raises(trio.WouldBlock):
            tasks.pool.task_nowait((task_app.echo, large))
        async with trio.open_nursery() as waiting:
            waiting.start_soon(tasks.post, task_app.echo, large)
            await trio.testing.wait_all_tasks_blocked()
            assert tasks.pool.statistics().posted == 3
            gate.let_through()
        ended = await tasks.until_finished(4)

    assert [ended[held + number].result for number in (1, 2, 3)] == [small, small, large]


async def test_the_size_of_one_task_is_bounded() -> None:
    """C6: data that is too large raises at its caller, and nothing was sent; so is a result's."""
    most = 100_000
    async with open_tasks(max_task_size=most) as tasks:
        (pid,) = tasks.pids
        frame = len(pickle.dumps((task_app.echo, bytes(most - 1000)), pickle.HIGHEST_PROTOCOL))
        largest = bytes(2 * most - 1000 - frame)
        assert await tasks.run(task_app.echo, largest) == largest
        problem = rf"^the task's data is {most + 1} bytes pickled, more than max_task_size {most}$"
        for post in (tasks.post, tasks.run):
            with pytest.raises(ValueError, match=problem):
                await post(task_app.echo, largest + b"x")
        with pytest.raises(ValueError, match=problem):
            tasks.pool.task_nowait((task_app.echo, largest + b"x"))
        with pytest.raises(ValueError, match="with its arguments is"):
            await tasks.pool.run_sync(len, bytes(most))
        assert tasks.pool.statistics().posted == 1

        with pytest.raises(TaskFailed, match=r"^ValueError: the task's result is \d+ bytes pick"):
            await tasks.pool.run_sync(bytes, most)
        assert await tasks.run(task_app.pid) == pid


async def test_a_task_that_posts_does_not_wait() -> None:
    """With the queue full, task.post raises `trio.WouldBlock`: all workers could be waiting."""
    async with open_tasks(max_queued_tasks=3) as tasks:
        assert await tasks.run(check_app.post_until_full, 10) == (
            3,
            "trio.WouldBlock: the queue is full (max_queued_tasks 3)",
        )
        # Those that were accepted have run when what came behind them has.
        assert await tasks.run(task_app.echo, "behind") == "behind"
        assert tasks.pool.statistics().completed == 5


class Greedy:
    """Every line is a task of its connection, which answers when it is accepted and when it ends.

    A line of a number posts so many more, each from the on_finish of the one before.
    """

    framing = EofFraming(b"\n")

    def __init__(self) -> None:
        self.streams: list[Connection] = []

    async def on_connect(self, stream: Connection) -> None:
        self.streams.append(stream)

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        await stream.task(data.decode())
        await stream.send_frame(b"accepted")

    def on_task(self, task: Task) -> object:
        if task.data.startswith("/"):
            task_app.wait(task.data)
        return task.data

    async def on_finish(self, completion: Completion) -> None:
        if completion.data.isdigit() and completion.data != "0":
            await completion.stream.task(str(int(completion.data) - 1))
        elif completion.error is None:
            await completion.stream.send_frame(b"done")


async def test_a_greedy_connection_does_not_starve_another(gate: Gate) -> None:
    """At its limit it waits by itself; the queue has room for others, who are served."""
    async with (
        open_served(
            Greedy, task_worker_num=1, max_tasks_per_connection=2, max_queued_tasks=3
        ) as running,
        await running.connect() as greedy,
        await running.connect() as polite,
    ):
        await greedy.send(gate.path.encode())
        assert await greedy.receive() == b"accepted"
        await gate.wait_for()
        await greedy.stream.send_all(b"more\n" * 10)
        assert await greedy.receive() == b"accepted"
        await trio.testing.wait_all_tasks_blocked()
        await polite.send(b"mine")
        assert await polite.receive() == b"accepted"
        assert running.server.statistics().posted == 3

        gate.let_through()
        assert await polite.receive() == b"done"
        answers = sorted([await greedy.receive() for _ in range(20)])
        assert answers == [b"accepted"] * 9 + [b"done"] * 11


async def test_on_finish_may_post_at_the_limit() -> None:
    """The task that it hears of counts no more, so it does not wait for itself."""
    async with open_served(
        Greedy, task_worker_num=1, max_tasks_per_connection=1, max_queued_tasks=1
    ) as running:
        async with await running.connect() as client:
            for _ in range(3):
                await client.send(b"20")
                assert {await client.receive(), await client.receive()} == {b"accepted", b"done"}
        assert running.server.statistics().posted == 3 * 21


OVERLOADED = """
    import os
    from trioserver import EofFraming

    framing = EofFraming(b"\\n")
    accepted = 0

    async def on_receive(stream, data):
        global accepted
        await stream.server.task(data)
        accepted += 1
        print("accepted", accepted)

    def on_task(task):
        while not os.path.exists("go"):
            os.sched_yield()
        return len(task.data)

    async def on_finish(completion):
        print("finished", completion.task_id, completion.result)
"""


def rss(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def send_until_blocked(client: socket.socket, data: memoryview) -> int:
    """Send what the other side takes; how many bytes those were."""
    sent = 0
    with suppress(TimeoutError):
        while sent < len(data):
            sent += client.send(data[sent:])
    return sent


def test_a_clients_send_blocks_in_the_end(start_server: StartServer, tmp_path: Path) -> None:
    """C13: the handler stops reading, TCP slows the client, and memory does not grow with it."""
    (tmp_path / "app.py").write_text(textwrap.dedent(OVERLOADED))
    server = start_server(
        "app", "--bind=127.0.0.1:0", "--task-worker-num=1", "--max-queued-tasks=10"
    )
    frames, size = 1000, 100_000
    data = memoryview((b"x" * (size - 1) + b"\n") * frames)
    before = rss(server.process.pid)
    with server.connect() as client:
        client.settimeout(1)
        sent = send_until_blocked(client, data)
        # One runs, ten are queued, and one waits for its turn; the rest lies in the kernel.
        wait_until(lambda: "accepted 11" in server.printed, "the queue is full")
        assert "accepted 12" not in server.printed
        assert sent < len(data) / 2
        assert rss(server.process.pid) - before < 20 * 2**20

        (tmp_path / "go").touch()
        client.settimeout(30)
        client.sendall(data[sent:])
        wait_until(
            lambda: sum("finished" in line for line in server.printed) == frames, "all have ended"
        )
        assert rss(server.process.pid) - before < 20 * 2**20

    lines = [line for line in server.printed if "finished" in line]
    assert sorted(lines) == sorted(f"finished {n} {size - 1}" for n in range(frames))
    assert server.stop() == 0
