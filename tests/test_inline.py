"""Task workers in the test's own process: coroutine tasks, limits of time, posts and progress."""

from __future__ import annotations

import pickle
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioserver import AppError, Settings, TaskCancelled, TaskFailed, TaskTimeout, TaskWorkerCrashed
from trioserver._app import load_app
from trioserver._tasks._inline import InlineTaskWorkers
from trioserver._tasks._job import Job
from trioserver._tasks._wire import Kind
from trioserver._tasks._workers import open_dispatcher
from trioserver.testing import open_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from trioserver import Completion, Connection, Server, Task
    from trioserver._tasks._dispatcher import Dispatcher
    from trioserver._tasks._wire import Answer


pytestmark = pytest.mark.usefixtures("form")


class Sleeper:
    """Its tasks are seconds to sleep, or what to do."""

    def __init__(self) -> None:
        self.finished: list[Completion] = []
        self.values: list[object] = []
        self.runs: list[object] = []
        self.server: Server

    async def on_worker_start(self, server: Server) -> None:
        self.server = server

    async def on_receive(self, stream: Connection, data: bytes) -> None: ...

    async def on_task(self, task: Task) -> object:
        self.runs.append((task.data, task.attempt))
        match task.data:
            case "hold on":
                with trio.CancelScope(shield=True):
                    await trio.sleep(10)
            case "post":
                return task.post(0.0), task.post(0.0)
            case "tell":
                for value in range(3):
                    task.progress(value)
                    await trio.sleep(1)
            case "wait for another":
                return await self.server.run_task(0.0)
            case seconds:
                await trio.sleep(seconds)
        return task.data

    async def on_finish(self, completion: Completion) -> None:
        self.finished.append(completion)

    async def on_progress(self, task_id: int, value: object) -> None:
        self.values.append((task_id, value))


def serve(app: object, **settings: Any) -> Any:  # the context manager of `open_app`
    return open_app(app, in_memory=True, task_worker_num=1, max_wait_time=1000, **settings)


async def test_coroutine_tasks_sleep_together(autojump_clock: MockClock) -> None:
    """As many as ``task_concurrency``; the others wait."""
    began = trio.current_time()
    async with serve(Sleeper(), task_concurrency=3) as running:
        completions = await running.server.run_tasks([5.0] * 4)

    assert trio.current_time() - began == 10
    assert [completion.result for completion in completions] == [5.0] * 4
    assert [completion.waited for completion in completions] == [0, 0, 0, 5]
    assert {completion.ran for completion in completions} == {5}


async def test_a_deadline_ends_one_task_and_no_other(autojump_clock: MockClock) -> None:
    """To the moment, from the begin of its run."""
    app = Sleeper()
    began = trio.current_time()
    async with serve(app, task_concurrency=2) as running:
        server = running.server
        await server.task(7.0)
        with pytest.raises(TaskTimeout, match=r"^the task did not end within 3 s$"):
            await server.run_task(60.0, timeout=3)
        assert trio.current_time() - began == 3
        await server.task(60.0, timeout=50)
        with pytest.raises(TaskTimeout, match=r"^the task did not begin within 2 s$"):
            await server.run_task(1.0, queue_timeout=2)
        assert trio.current_time() - began == 5
        with trio.move_on_after(1):
            await server.run_task(60.0)

    assert [(done.error, done.ran) for done in app.finished if done.error is None] == [(None, 7)]


async def test_who_does_not_let_go_takes_its_neighbours_along(autojump_clock: MockClock) -> None:
    """As the kill of a process would; who has retries runs once more."""
    app = Sleeper()
    async with serve(app, task_concurrency=3) as running:
        server = running.server
        for data, retries in (("hold on", 0), (60.0, 0), (61.0, 1)):
            await server.task(
                data, timeout=5 if retries == 0 and data == "hold on" else 100, retries=retries
            )

    errors = {done.data: (type(done.error), done.attempt) for done in app.finished}
    assert errors == {
        "hold on": (TaskTimeout, 1),
        60.0: (TaskWorkerCrashed, 1),
        61.0: (type(None), 2),
    }


async def test_attempts_wait_longer_and_longer(autojump_clock: MockClock) -> None:
    """0.1 s, 0.2 s, and up to a quarter more."""
    app = Sleeper()
    began = trio.current_time()
    async with serve(app) as running:
        with pytest.raises(TaskTimeout):
            await running.server.run_task(60.0, timeout=1, retries=2)

    assert 3.3 <= trio.current_time() - began <= 3.375
    assert app.runs == [(60.0, 1), (60.0, 2), (60.0, 3)]


async def test_tasks_post_and_tell(autojump_clock: MockClock) -> None:
    """What they post completes; values come one by one."""
    app = Sleeper()
    async with serve(app) as running:
        server = running.server
        assert await server.run_task("post") == (1, 2)
        await server.run_task("tell")

    assert {done.task_id: done.result for done in app.finished} == {1: 0.0, 2: 0.0}
    assert app.values == [(3, 0), (3, 1), (3, 2)]


async def test_a_task_that_waits_for_a_task_is_refused(autojump_clock: MockClock) -> None:
    """All workers could be waiting, so that it might be for ever."""
    async with serve(Sleeper()) as running:
        with pytest.raises(TaskFailed, match=r"^RuntimeError: a task cannot wait for another task"):
            await running.server.run_task("wait for another")


async def test_cancel_ends_a_coroutine_at_once(autojump_clock: MockClock) -> None:
    """By its own scope."""
    app = Sleeper()
    began = trio.current_time()
    async with serve(app) as running:
        server = running.server
        number = await server.task(60.0)
        await trio.sleep(2)
        assert server.cancel(number)
        await wait_all_tasks_blocked()
        assert trio.current_time() - began == 2

    (done,) = app.finished
    assert isinstance(done.error, TaskCancelled)
    assert done.error.begun


class Lives(Sleeper):
    """Notes which workers start and stop."""

    def __init__(self) -> None:
        super().__init__()
        self.lives: list[tuple[str, int]] = []
        self.is_broken = False

    def on_task_worker_start(self, worker_id: int) -> None:
        if self.is_broken:
            raise ValueError("no good")
        self.lives.append(("start", worker_id))

    def on_task_worker_stop(self, worker_id: int) -> None:
        self.lives.append(("stop", worker_id))


@asynccontextmanager
async def inline_workers(number: int) -> AsyncIterator[tuple[Lives, InlineTaskWorkers, Dispatcher]]:
    app = Lives()
    workers = InlineTaskWorkers(load_app(app), Settings(task_worker_num=number))
    async with open_dispatcher(workers) as dispatcher:
        yield app, workers, dispatcher


async def test_a_reload_starts_and_stops_workers(autojump_clock: MockClock) -> None:
    """Old ones end what they have begun, and what comes then is for the fresh ones."""
    sink = Sink()
    async with inline_workers(2) as (app, workers, dispatcher):
        app.lives.clear()
        old = sink.post(dispatcher, 5.0)
        await trio.sleep(1)
        await workers.reload()
        await wait_all_tasks_blocked()
        # The old worker 0 still runs its task.
        assert app.lives == [("start", 0), ("start", 1), ("stop", 1)]
        assert dispatcher.workers == workers.task_worker_num == 2
        fresh = sink.post(dispatcher, 1.0)
        await trio.sleep(10)
        assert sink.ended == [fresh, old]
        assert app.lives[3:] == [("stop", 0)]
    assert app.lives[4:] == [("stop", 0), ("stop", 1)]


async def test_a_reload_that_fails_keeps_the_workers(
    autojump_clock: MockClock,
) -> None:
    """Whatever on_task_worker_start raises."""
    sink = Sink()
    async with inline_workers(1) as (app, workers, dispatcher):
        app.is_broken = True
        reason = r"^task worker 0 cannot start: ValueError\('no good'\)$"
        with pytest.raises(AppError, match=reason):
            await workers.reload()
        job = sink.post(dispatcher, 1.0)
        await trio.sleep(2)
        assert sink.ended == [job]
    assert app.lives == [("start", 0), ("stop", 0)]


async def test_the_number_of_workers_can_change(autojump_clock: MockClock) -> None:
    """The highest numbers come and go."""
    async with inline_workers(1) as (app, workers, dispatcher):
        await workers.scale(3)
        assert dispatcher.workers == workers.task_worker_num == 3
        await workers.scale(2)
        await wait_all_tasks_blocked()
        assert dispatcher.workers == 2
        with pytest.raises(
            ValueError, match=r"^the number of task workers must be from 1 to 1000: 0$"
        ):
            await workers.scale(0)
        with pytest.raises(TypeError, match=r"^the number of .* a whole number: 1\.0$"):
            await workers.scale(1.0)  # type: ignore[arg-type]  # what users may do
    assert app.lives == [*(("start", n) for n in range(3)), ("stop", 2), ("stop", 0), ("stop", 1)]


class Sink:
    """Posts to a dispatcher, and hears of it."""

    is_gone = False

    def __init__(self) -> None:
        self.ended: list[Job] = []

    def post(self, dispatcher: Dispatcher, data: object) -> Job:
        job = Job(Kind.TASK, pickle.dumps(data), self)
        dispatcher.accept(job)
        return job

    def jobs_ended(self, jobs: Sequence[Job]) -> None:
        self.ended += jobs

    def job_progressed(self, job: Job, body: bytes) -> None:
        raise AssertionError("nothing is told")

    def job_posts(self, job: Job, payload: bytes) -> tuple[Answer, int, str]:
        raise AssertionError("nothing is posted")
