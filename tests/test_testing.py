"""What users test their apps with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from server_apps import Tasks

from trioserver import AppError, EofFraming, LengthFraming, TaskFailed
from trioserver.testing import Client, open_app

if TYPE_CHECKING:
    from pathlib import Path

    from trioserver import Completion, Connection, Task


class Slow:
    """Answers after ten seconds, and mails after twenty."""

    framing = EofFraming(b"\n")

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        await trio.sleep(10)
        await stream.task(data)

    def on_task(self, task: Task) -> object:
        return task.data.upper()

    async def on_finish(self, completion: Completion) -> None:
        await trio.sleep(10)
        await completion.stream.send_frame(completion.result)


async def test_in_memory_time_jumps(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing real is waited for: twenty seconds are exactly that, and pass at once."""
    async with (
        open_app(Slow, in_memory=True, task_worker_num=1) as running,
        await running.connect() as client,
    ):
        await client.send(b"hello")
        assert await client.receive() == b"HELLO"
        assert trio.current_time() == 20


async def test_in_memory_rejects_what_processes_reject(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Data and results go through pickle both ways, and errors are the same."""
    app = Tasks()
    async with open_app(app, in_memory=True, task_worker_num=2):
        server = app.server
        data = ["a"]
        with pytest.raises(TypeError, match=r"^the task's data of type generator cannot be"):
            await server.task(x for x in data)
        with pytest.raises(TaskFailed, match=r"^ValueError: no good\n"):
            await server.run_task("raise no good")
        with pytest.raises(TaskFailed, match=r"^TypeError: the task's result of type generator"):
            await server.run_sync(iter_of, 3)
        assert await server.run_task("pid") == os.getpid()


def iter_of(number: int) -> object:
    """Something that cannot be pickled."""
    return (x for x in range(number))


async def test_in_memory_tasks_keep_order_and_end_with_their_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One worker runs tasks in the order of the posts; a stop runs out what is queued."""
    app = Tasks()
    async with open_app(app, in_memory=True, task_worker_num=1):
        for number in range(100):
            await app.server.task(f"echo {number}")

    assert [completion.result for completion in app.completions] == [
        str(number) for number in range(100)
    ]


async def test_a_client_receives_frames_and_the_end() -> None:
    """Frames as the app frames them; then trio.EndOfChannel."""

    class Twice:
        framing = LengthFraming("n")

        async def on_receive(self, stream: Connection, data: bytes) -> None:
            await stream.send_frame(data)
            await stream.send_frame(b"")

    async with open_app(Twice) as running, await running.connect() as client:
        await client.send(b"x" * 1000)
        await client.send_eof()

        assert await client.receive() == b"x" * 1000
        assert await client.receive() == b""
        with pytest.raises(trio.EndOfChannel):
            await client.receive()


async def test_a_client_connects_to_unix_sockets(tmp_path: Path) -> None:
    """By the same text as in Settings.bind."""
    address = f"unix:{tmp_path / 'socket'}"

    class Echo:
        async def on_receive(self, stream: Connection, data: bytes) -> None:
            await stream.send_all(data)

    async with open_app(Echo, bind=address) as running:
        assert running.server.addresses == (address,)
        async with await Client.connect(address) as client:
            await client.send(b"x")
            assert await client.receive() == b"x"
    with pytest.raises(OSError, match=r"No such file"):
        await Client.connect(address)


async def test_an_app_that_is_none_is_refused() -> None:
    """As serve refuses it."""
    with pytest.raises(AppError, match=r"^builtins:object: on_receive is required"):
        async with open_app(object()):
            raise AssertionError("it was served")


class Opened:
    """Notes which task workers start and stop."""

    def __init__(self) -> None:
        self.workers: list[str] = []

    async def on_receive(self, stream: Connection, data: bytes) -> None: ...

    def on_task_worker_start(self, worker_id: int) -> None:
        if worker_id == 2:
            raise OSError("no more connections")
        self.workers.append(f"start {worker_id}")

    def on_task_worker_stop(self, worker_id: int) -> None:
        self.workers.append(f"stop {worker_id}")

    def on_task(self, task: Task) -> object:
        return task.worker_id

    async def on_finish(self, completion: Completion) -> None: ...


async def test_in_memory_workers_start_and_stop(autojump_clock: trio.testing.MockClock) -> None:
    """Each of them, and one that cannot begin stops the start as a process would."""
    app = Opened()
    async with open_app(app, in_memory=True, task_worker_num=2) as running:
        assert app.workers == ["start 0", "start 1"]
        assert await running.server.run_task(None) in {0, 1}
    assert app.workers[2:] == ["stop 0", "stop 1"]

    with pytest.RaisesGroup(
        pytest.RaisesExc(AppError, match=r"^task worker 2 cannot start: OSError"),
        allow_unwrapped=True,
        flatten_subgroups=True,
    ):
        async with open_app(app, in_memory=True, task_worker_num=3):
            raise AssertionError("it was served")


async def test_in_memory_tasks_are_taken_back(autojump_clock: trio.testing.MockClock) -> None:
    """What has not begun is cancelled at once, in the worker's hands or in the queue."""
    app = Tasks()
    async with (
        open_app(app, in_memory=True, task_worker_num=1) as running,
        await running.connect(),
    ):
        await trio.testing.wait_all_tasks_blocked()
        (stream,) = app.streams
        ids = [stream.task_nowait(f"echo {number}") for number in range(3)]
        assert all(running.server.cancel(task_id) for task_id in ids)

    assert [str(completion.error) for completion in app.completions] == [
        "the task was cancelled before it began: server.cancel was called"
    ] * 3
    with pytest.raises(trio.ClosedResourceError):
        stream.task_nowait("echo")
    with pytest.raises(trio.ClosedResourceError):
        stream.start_soon(trio.sleep_forever)
