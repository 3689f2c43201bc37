"""What a type checker makes of the public names. Checked by mypy, never run.

``assert_type`` pins what users get; an ``ignore`` that is no longer needed is an error, so each of
them says that the line above it is refused.
"""

from __future__ import annotations

import types
from collections.abc import AsyncIterator
from typing import Any, assert_type

import trio

import trioserver
import trioserver.testing
from trioserver import (
    AddressError,
    AppError,
    Completion,
    Connection,
    Decoder,
    EofFraming,
    FixedFraming,
    FrameTooLargeError,
    Framing,
    FramingError,
    IncompleteFrameError,
    LengthFraming,
    Quantiles,
    RawFraming,
    Server,
    ServerStatistics,
    Settings,
    SettingsError,
    Task,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskPool,
    TaskStatistics,
    TaskTimeout,
    TaskWorkerCrashed,
    TaskWorkerStatistics,
    TrioserverError,
)


class App:
    settings = Settings(bind="127.0.0.1:0", task_worker_num=2, max_wait_time=3)
    framing = LengthFraming("n", length_offset=2, body_offset=8, keep_header=True)

    async def on_worker_start(self, server: Server) -> None:
        assert_type(server.worker_id, int)
        assert_type(server.settings, Settings)
        assert_type(server.settings.bind, tuple[str, ...])
        assert_type(server.settings.max_wait_time, float)
        assert_type(server.addresses, tuple[str, ...])
        assert_type(server.connections, tuple[Connection, ...])
        server.start_soon(trio.sleep, 1.0)
        server.start_soon(trio.sleep, "1")  # type: ignore[arg-type]
        server.start_soon(trio.sleep)  # type: ignore[arg-type]

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        assert_type(stream.id, int)
        assert_type(stream.server, Server)
        assert_type(stream.state, types.SimpleNamespace)
        assert_type(stream.close_reason, str | None)
        assert_type(await stream.task(data), int)
        assert_type(stream.task_nowait(data, on_finish=self.on_finish), int)
        stream.start_soon(trio.sleep, 1.0)
        stream.start_soon(trio.sleep, "1")  # type: ignore[arg-type]
        await stream.send_all(bytearray(data))
        await stream.send_all("text")  # type: ignore[arg-type]
        await stream.send_frame(data)
        await stream.send_eof()

    async def on_stream(self, stream: Connection) -> None:
        assert_type(await stream.receive_frame(), bytes)
        assert_type(stream.frames(), AsyncIterator[bytes])
        async for frame in stream.frames():
            assert_type(frame, bytes)
        assert_type(await stream.receive_some(10), bytes)

    def on_task(self, task: Task) -> object:
        assert_type(task.id, int)
        assert_type(task.worker_id, int)
        assert_type(task.attempt, int)
        assert_type(task.data, Any)
        assert_type(task.post(b"more"), int)
        task.progress(0.5)
        return task.data

    async def on_progress(self, task_id: int, value: object) -> None: ...

    async def on_finish(self, completion: Completion) -> None:
        assert_type(completion.task_id, int)
        assert_type(completion.result, Any)
        assert_type(completion.data, Any)
        assert_type(completion.error, TaskError | None)
        assert_type(completion.attempt, int)
        assert_type(completion.waited, float)
        assert_type(completion.ran, float)
        assert_type(completion.task_worker, int | None)


def double(number: int) -> float:
    return 2.0 * number


async def tasks(server: Server, app: App) -> None:
    assert_type(await server.task({"any": "thing"}), int)
    assert_type(await server.task(1, on_finish=app.on_finish), int)
    assert_type(server.task_nowait(1), int)
    assert_type(await server.task(1, timeout=2, queue_timeout=0.5, retries=3, task_worker=0), int)
    assert_type(await server.run_task(1, timeout=2.5, retries=1), Any)
    await server.task(1, timeout="2")  # type: ignore[arg-type]
    await server.run_task(1, on_finish=app.on_finish)  # type: ignore[call-arg]
    assert_type(await server.run_task(1), Any)
    assert_type(await server.run_tasks([1, "2"]), list[Completion])
    assert_type(await server.run_sync(double, 1), float)
    assert_type(server.cancel(0), bool)
    await server.run_sync(double, "1")  # type: ignore[arg-type]
    await server.task(1, on_finish=double)  # type: ignore[arg-type]
    server.shutdown()


class Lines:
    """A framing of the user's, of which nothing is derived."""

    def encode(self, payload: bytes) -> bytes:
        return payload + b"\n"

    def decoder(self, max_length: int) -> Decoder:
        return EofFraming(b"\n").decoder(max_length)


class NoFraming:
    def encode(self, payload: bytes) -> bytes:
        return payload


framings: list[Framing] = [
    RawFraming(),
    EofFraming(b"\n"),
    FixedFraming(16),
    LengthFraming(),
    Lines(),
    NoFraming(),  # type: ignore[list-item]
]

Settings(bind=["127.0.0.1:0", "unix:/run/app.sock"])
Settings(task_worker_num="4")  # type: ignore[arg-type]
Settings(task_workers=4)  # type: ignore[call-arg]
Settings("127.0.0.1:0")  # type: ignore[call-arg]
Settings().max_conn = 1  # type: ignore[misc]


async def embedded() -> None:
    async with trio.open_nursery() as nursery:
        assert_type(await nursery.start(trioserver.serve, App, Settings()), Any)
    await trioserver.serve(App)


async def pooled() -> None:
    async with trioserver.open_task_pool(App, Settings(task_worker_num=1)) as pool:
        assert_type(pool, TaskPool)
        assert_type(await pool.run_sync(double, 1), float)
        assert_type(pool.statistics(), TaskStatistics)


def numbers(server: Server) -> None:
    statistics = server.statistics()
    assert_type(statistics, ServerStatistics)
    assert_type(statistics.queued, int)
    assert_type(statistics.oldest_queued, float)
    assert_type(statistics.wait, Quantiles)
    assert_type(statistics.workers, tuple[TaskWorkerStatistics, ...])
    assert_type(statistics.workers[0].rss, int | None)
    statistics.queued = 1  # type: ignore[misc]


async def tested() -> None:
    async with trioserver.testing.open_app(App, in_memory=True, task_worker_num=1) as running:
        client = await running.connect()
        await client.send(b"x")
        assert_type(await client.receive(), bytes)


def main() -> None:
    trioserver.run(App)
    trioserver.run("app:App", Settings(), argv=["--check"])


def facts(
    too_large: FrameTooLargeError,
    incomplete: IncompleteFrameError,
    failed: TaskFailed,
    crashed: TaskWorkerCrashed,
    cancelled: TaskCancelled,
    timed_out: TaskTimeout,
    wrong: SettingsError,
) -> None:
    assert_type(too_large.size, int)
    assert_type(too_large.max_length, int)
    assert_type(incomplete.received, int)
    assert_type(incomplete.expected, int | None)
    assert_type(failed.summary, str)
    assert_type(failed.remote_traceback, str)
    assert_type(failed.original, BaseException | None)
    assert_type(crashed.exit_code, int | None)
    assert_type(crashed.signal, int | None)
    assert_type(cancelled.reason, str)
    assert_type(cancelled.begun, bool)
    assert_type(timed_out.seconds, float)
    assert_type(timed_out.begun, bool)
    assert_type(wrong.problems, list[tuple[str, str]])


families: list[type[TrioserverError]] = [AddressError, AppError, FramingError, TaskError]
task_errors: list[type[TaskError]] = [
    TaskFailed,
    TaskTimeout,
    TaskCancelled,
    TaskWorkerCrashed,
]
framing_errors: list[type[FramingError]] = [FrameTooLargeError, IncompleteFrameError]
