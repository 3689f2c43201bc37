"""The server in a Trio program, with real sockets and real task workers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio
from server_apps import Tasks, tasks

import trioserver
from trioserver import TaskCancelled, TaskFailed
from trioserver.testing import open_app

if TYPE_CHECKING:
    from pathlib import Path

    from trioserver import Completion, Connection, Server

PATIENCE = 30


async def exists(path: Path) -> None:
    """Wait for a file."""
    with trio.fail_after(PATIENCE):
        while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240  # another process makes it
            await trio.sleep(0.005)


async def heard(app: Tasks, number: int) -> None:
    """Wait until the app has heard of so many completions."""
    with trio.fail_after(PATIENCE):
        while len(app.completions) < number:
            app.heard = trio.Event()
            await app.heard.wait()


@pytest.fixture
def app() -> Tasks:
    """An app that stands at the top level of a module, which an instance with tasks must."""
    tasks.__init__()  # type: ignore[misc]  # as good as new
    return tasks


async def test_a_completion_answers_on_its_stream(app: Tasks) -> None:
    """completion.stream is the connection that posted; the client hears id and result."""
    async with (
        open_app(app, task_worker_num=1) as running,
        await running.connect() as client,
    ):
        await client.send(b"own echo hi")
        assert await client.receive() == b"0"
        assert await client.receive() == b"finished hi"

    (completion,) = app.completions
    assert completion.data == "echo hi"
    assert completion.result == "hi"
    assert completion.error is None
    assert completion.attempt == 1
    assert completion.task_worker == 0
    assert completion.waited >= 0
    assert completion.ran >= 0


async def test_a_task_of_a_connection_ends_with_it(app: Tasks, tmp_path: Path) -> None:
    """Running or queued, it is cancelled when its client leaves; a task of the server's goes on."""
    go = tmp_path / "go"
    async with open_app(app, task_worker_num=1) as running:
        async with await running.connect() as client:
            await client.send(f"own wait {go}".encode())
            await client.receive()
            await exists(tmp_path / "go.begun")
            await client.send(b"own echo queued")
            await client.receive()
            await client.send(b"post echo server's")
            await client.receive()
        await heard(app, 3)

    ended = {completion.task_id: completion for completion in app.completions}
    assert isinstance(ended[0].error, TaskCancelled)
    assert str(ended[0].error) == "the task was cancelled while it ran: its connection closed"
    assert str(ended[1].error) == "the task was cancelled before it began: its connection closed"
    assert ended[2].result == "server's"
    stream = ended[0].stream
    assert stream is app.streams[0]
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"too late")
    with pytest.raises(trio.ClosedResourceError):
        await stream.task("too late")


async def test_cancel_ends_one_task(app: Tasks, tmp_path: Path) -> None:
    """server.cancel ends a queued and a running task, and knows which ids are alive."""
    async with open_app(app, task_worker_num=1):
        server = app.server
        running = await server.task(f"wait {tmp_path / 'never'}")
        await exists(tmp_path / "never.begun")
        queued = await server.task("echo 1")

        assert server.cancel(queued)
        assert server.cancel(running)
        await heard(app, 2)
        assert not server.cancel(running)
        assert not server.cancel(12345)
        assert await server.run_task("echo again") == "again"

    assert [str(completion.error) for completion in app.completions] == [
        "the task was cancelled before it began: server.cancel was called",
        "the task was cancelled while it ran: server.cancel was called",
    ]


async def test_run_task_returns_raises_and_hears_alone(app: Tasks) -> None:
    """The outcome of run_task comes to its caller, and on_finish hears nothing."""
    async with open_app(app, task_worker_num=2):
        server = app.server
        assert await server.run_task("echo 1") == "1"
        with pytest.raises(TaskFailed, match=r"^ValueError: no good\n") as caught:
            await server.run_task("raise no good")
        outcomes = await server.run_tasks(["echo a", "raise b", "echo c"])
        assert await server.run_sync(os.getpgid, os.getpid()) == os.getpgid(0)
        with pytest.raises(TaskFailed, match=r"^ProcessLookupError: "):
            await server.run_sync(os.getpgid, 2**22 + 1)

    assert isinstance(caught.value.original, ValueError)
    assert caught.value.__cause__ is caught.value.original
    assert "raise ValueError(argument)" in caught.value.remote_traceback
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert outcomes[2].result == "c"
    assert app.completions == []


async def test_on_finish_of_a_task_replaces_the_apps(app: Tasks) -> None:
    """task(on_finish=...) is heard by that callback alone."""
    heard_by_its_own: list[Completion] = []

    async def own(completion: Completion) -> None:
        heard_by_its_own.append(completion)

    async with open_app(app, task_worker_num=1):
        await app.server.task("echo 1", on_finish=own)
        app.server.task_nowait("echo 2", on_finish=own)

    assert [completion.result for completion in heard_by_its_own] == ["1", "2"]
    assert app.completions == []


async def test_what_cannot_be_pickled_is_not_accepted(app: Tasks) -> None:
    """It raises at the caller; no id is spent on it."""
    async with open_app(app, task_worker_num=1):
        server = app.server
        with pytest.raises(TypeError, match=r"^the task's data of type function cannot be pickled"):
            await server.task(lambda: None)
        with pytest.raises(TypeError, match=r"^<lambda>|cannot be pickled"):
            await server.run_sync(lambda: None)
        assert await server.task("echo 1") == 0


async def test_a_server_without_task_workers_says_so(app: Tasks) -> None:
    """Posting raises, and names the setting."""
    async with open_app(app):
        with pytest.raises(RuntimeError, match=r"^task_worker_num is 0: this server has no task"):
            await app.server.task(1)


class Plain:
    """Without tasks."""

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        await stream.send_all(b"%d" % len(stream.server.connections))


async def test_several_servers_live_in_one_process() -> None:
    """Nothing is global: each has its connections, and its ids from 1."""
    async with open_app(Plain) as one, open_app(Plain) as other:
        async with (
            await one.connect() as client,
            await one.connect(),
            await other.connect() as third,
        ):
            await client.send(b"x")
            await third.send(b"x")
            assert await client.receive() == b"2"
            assert await third.receive() == b"1"
        assert one.server.addresses != other.server.addresses
        assert (one.server.worker_id, one.server.settings.worker_num) == (0, 1)


async def test_background_tasks_end_with_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """server.start_soon does not hold up the stop, and an error in it costs nothing else."""
    ended = trio.Event()

    async def ticks() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async def fails() -> None:
        raise ValueError("no good")

    async with open_app(Plain) as running:
        running.server.start_soon(ticks)
        running.server.start_soon(fails)
        async with await running.connect() as client:
            await client.send(b"x")
            await client.receive()

    assert ended.is_set()
    assert running.server.cut == 0
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["no good"]


async def test_cancelling_serve_ends_everything_at_once(app: Tasks, tmp_path: Path) -> None:
    """Callbacks and tasks are cut; nothing waits for max_wait_time."""
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            settings = trioserver.Settings(
                bind="127.0.0.1:0", task_worker_num=1, max_wait_time=10 * PATIENCE
            )
            server: Server = await nursery.start(trioserver.serve, app, settings)
            await server.task(f"wait {tmp_path / 'never'}")
            await exists(tmp_path / "never.begun")
            nursery.cancel_scope.cancel()

    assert server.cut == 1


async def test_on_finish_may_post_while_the_queue_is_full(tmp_path: Path) -> None:
    """Each completion posts two more into a queue of one; nothing deadlocks."""
    async with open_app(chain, task_worker_num=1, max_queued_tasks=1) as running:
        chain.__init__()  # type: ignore[misc]  # as good as new
        with trio.fail_after(PATIENCE):
            await running.server.task(4)
            while chain.finished < 2**5 - 1:
                chain.changed = trio.Event()
                await chain.changed.wait()

    assert running.server.cut == 0


class Chain:
    """Every completion of n posts n - 1 twice."""

    def __init__(self) -> None:
        self.finished = 0
        self.changed = trio.Event()
        self.server: Server

    async def on_receive(self, stream: Connection, data: bytes) -> None: ...

    async def on_worker_start(self, server: Server) -> None:
        self.server = server

    def on_task(self, task: trioserver.Task) -> object:
        return task.data

    async def on_finish(self, completion: Completion) -> None:
        if completion.result:
            await self.server.task(completion.result - 1)
            await self.server.task(completion.result - 1)
        self.finished += 1
        self.changed.set()


chain = Chain()
