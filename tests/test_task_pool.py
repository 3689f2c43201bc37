"""The task pool over a model engine: what is admitted, who hears of it, what a stop does.

No processes and no real time: the tests say when a worker runs a task, and when a killed one dies.
"""

from __future__ import annotations

import logging
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest
import trio
from model_engine import ModelEngine
from trio.testing import MockClock, wait_all_tasks_blocked

from trioserver._errors import TaskCancelled, TaskFailed, TaskWorkerCrashed
from trioserver._pacing import Pacer
from trioserver._settings import Settings
from trioserver._stopping import Stopping
from trioserver._tasks._finishing import MAX_LOOPS
from trioserver._tasks._pool import TaskPool, open_task_pool
from trioserver._tasks._wire import Failure, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trioserver._net._connection import Connection
    from trioserver._tasks._values import Completion


class Bench:
    """A pool, its engine of one worker, and what ``on_finish`` got."""

    def __init__(self, max_wait_time: float = 5) -> None:
        self.engine = ModelEngine()
        self.stopping = Stopping(max_wait_time)
        self.finished: list[Completion] = []
        self.pool: TaskPool

    async def on_finish(self, completion: Completion) -> None:
        self.finished.append(completion)

    @asynccontextmanager
    async def open(
        self,
        on_finish: Callable[[Completion], Awaitable[None]] | None = None,
        *,
        max_queued_tasks: int = 100,
    ) -> AsyncIterator[TaskPool]:
        async with open_task_pool(
            self.engine.dispatcher,
            on_finish or self.on_finish,
            Settings(max_queued_tasks=max_queued_tasks),
            self.stopping,
            Pacer(),
        ) as self.pool:
            yield self.pool

    async def post(self, data: object = None) -> int:
        return await self.pool.task(data, stream=None, on_finish=None)

    def post_nowait(self, data: object = None) -> int:
        return self.pool.task_nowait(data, stream=None, on_finish=None)

    async def run(self, count: int = 1) -> None:
        """Have the worker run tasks, and everybody hear of it."""
        for _ in range(count):
            await wait_all_tasks_blocked()
            self.engine.run(0)
        await wait_all_tasks_blocked()

    async def run_out(self) -> None:
        """Have the worker run whatever there is."""
        while True:
            await wait_all_tasks_blocked()
            if not self.engine.workers[0].orders:
                return
            self.engine.run(0)

    async def die(self) -> None:
        """The killed worker dies, and is replaced."""
        await wait_all_tasks_blocked()
        self.engine.die(0)
        self.engine.replace(0)

    def end_in_hand(self) -> None:
        """All that the worker has ends at once, and is reported in one message."""
        while self.engine.workers[0].orders:
            self.engine.begin(0)
            self.engine.finish(0)
        self.engine.send(0)

    @property
    def results(self) -> dict[int, object]:
        return {
            completion.task_id: completion.error or completion.result
            for completion in self.finished
        }


# Posting


async def test_a_post_returns_at_once_and_its_completion_comes_later(
    autojump_clock: MockClock,
) -> None:
    """Ids count from 0; each accepted task is heard of once."""
    bench = Bench()
    async with bench.open():
        assert [await bench.post(), bench.post_nowait(), await bench.post()] == [0, 1, 2]
        assert bench.finished == []
        await bench.run(3)

    assert bench.results == dict.fromkeys(range(3), "result")
    assert [completion.task_id for completion in bench.finished] == [0, 1, 2]


async def test_a_completion_tells_how_it_went(autojump_clock: MockClock) -> None:
    """What was posted, as it was then; by whom it was run; how long it waited and ran."""
    bench = Bench()
    data = ["as posted"]
    async with bench.open():
        await bench.post(data)
        data.append("changed later")
        bench.engine.now += 1.5
        bench.engine.run(0, 0.25)

    (completion,) = bench.finished
    assert completion.data == ["as posted"]
    assert completion.result == completion.unwrap() == "result"
    assert completion.error is None
    assert completion.stream is None
    assert (completion.waited, completion.ran) == (1.5, 0.25)
    assert (completion.task_worker, completion.attempt) == (0, 1)
    assert repr(completion) == "<Completion of task 0, attempt 1>"


async def test_a_task_may_have_a_hearer_of_its_own(autojump_clock: MockClock) -> None:
    """It hears of it in place of the app's on_finish."""
    bench = Bench()
    own: list[Completion] = []

    async def on_own(completion: Completion) -> None:
        await trio.lowlevel.checkpoint()
        own.append(completion)

    async with bench.open():
        await bench.pool.task(None, stream=None, on_finish=on_own)
        bench.post_nowait()
        await bench.run(2)

    assert [completion.task_id for completion in own] == [0]
    assert [completion.task_id for completion in bench.finished] == [1]


async def test_data_that_cannot_be_pickled_raises_at_its_caller(autojump_clock: MockClock) -> None:
    """By each way of posting; nothing was accepted, and no id was spent."""
    bench = Bench()
    lock = threading.Lock()
    text = r"^the task's data of type lock cannot be pickled: cannot pickle '_thread.lock' object$"
    async with bench.open():
        with pytest.raises(TypeError, match=text):
            await bench.post(lock)
        with pytest.raises(TypeError, match=text):
            bench.post_nowait(lock)
        with pytest.raises(TypeError, match=text):
            await bench.pool.run_task(lock)
        with pytest.raises(TypeError, match=r"^print with its arguments of type tuple cannot be"):
            await bench.pool.run_sync(print, (lock,))
        assert bench.engine.counts == (0, 0)
        assert bench.post_nowait() == 0
        await bench.run()

    assert len(bench.finished) == 1


async def test_a_post_waits_while_the_queue_is_full(autojump_clock: MockClock) -> None:
    """The running one does not count; each that begins lets one in, first come first served."""
    bench = Bench()
    ids: dict[str, int] = {}

    async def post(name: str) -> None:
        ids[name] = await bench.post(name)

    async with bench.open(max_queued_tasks=2), trio.open_nursery() as posting:
        for _ in range(3):
            bench.post_nowait()
        for name in ("a", "b", "c"):
            posting.start_soon(post, name)
            await wait_all_tasks_blocked()
        assert ids == {}
        with pytest.raises(trio.WouldBlock):
            bench.post_nowait()

        await bench.run()
        assert ids == {"a": 3}
        await bench.run()
        assert ids == {"a": 3, "b": 4}
        await bench.run_out()

    assert ids == {"a": 3, "b": 4, "c": 5}
    assert sorted(bench.results) == list(range(6))


async def test_a_post_that_is_cancelled_in_line_leaves_nothing(autojump_clock: MockClock) -> None:
    """It was not accepted: it never runs, and spends no id."""
    bench = Bench()
    async with bench.open(max_queued_tasks=1):
        for _ in range(2):
            bench.post_nowait()
        with trio.move_on_after(1) as scope:
            await bench.post()
        assert scope.cancelled_caught
        await bench.run_out()
        assert bench.post_nowait() == 2
        await bench.run_out()

    assert sorted(bench.results) == [0, 1, 2]


async def test_posting_checks_for_cancellation_also_with_room(autojump_clock: MockClock) -> None:
    """A hot call, but not a deaf one."""
    bench = Bench()
    async with bench.open():
        with trio.CancelScope() as scope:
            scope.cancel()
            await bench.post()
        assert scope.cancelled_caught
        assert bench.engine.counts == (0, 0)


# Delivering


async def test_an_on_finish_that_posts_deadlocks_nothing(autojump_clock: MockClock) -> None:
    """While the queue is full and others are in line it waits, and it goes first."""
    bench = Bench()
    most = 0

    async def on_finish(completion: Completion) -> None:
        await bench.on_finish(completion)
        if completion.data > 0:
            await bench.post(completion.data - 1)

    async def post_many() -> None:
        for _ in range(20):
            await bench.post(0)

    async with bench.open(on_finish, max_queued_tasks=1), trio.open_nursery() as posting:
        await bench.post(10)
        await bench.post(10)
        posting.start_soon(post_many)
        while len(bench.finished) < 42:
            await bench.run()
            most = max(most, bench.engine.counts[0])

    assert sorted(bench.results) == list(range(42))
    assert most == 1


async def test_many_waiting_posts_from_on_finish_deadlock_nothing(
    autojump_clock: MockClock,
) -> None:
    """More of them than there are finish loops."""
    bench = Bench()

    async def on_finish(completion: Completion) -> None:
        await bench.on_finish(completion)
        if completion.data == "first":
            await bench.post("second")
            await bench.post("second")

    async with bench.open(on_finish, max_queued_tasks=2 * MAX_LOOPS):
        for _ in range(2 * MAX_LOOPS):
            bench.post_nowait("first")
        while len(bench.finished) < 6 * MAX_LOOPS:
            await wait_all_tasks_blocked()
            bench.end_in_hand()

    assert sorted(bench.results) == list(range(6 * MAX_LOOPS))


async def test_room_that_on_finish_does_not_use_goes_to_the_other_line(
    autojump_clock: MockClock,
) -> None:
    """Its connection has closed while it was in line, and nothing else would call the next."""
    bench = Bench()
    stream = FakeStream()
    refused: list[int] = []

    async def on_finish(completion: Completion) -> None:
        await bench.on_finish(completion)
        if completion.task_id == 0:
            try:
                await bench.pool.task(1, stream=as_connection(stream), on_finish=None)
            except trio.ClosedResourceError:
                refused.append(completion.task_id)

    async with bench.open(on_finish, max_queued_tasks=2), trio.open_nursery() as posting:
        for _ in range(3):
            bench.post_nowait()
        bench.engine.run(0)
        bench.post_nowait()  # the queue is full again, and on_finish of task 0 will be in line
        await wait_all_tasks_blocked()
        posting.start_soon(bench.post)
        await wait_all_tasks_blocked()
        stream.is_closed = True
        bench.end_in_hand()
        await bench.run_out()

    assert refused == [0]
    assert sorted(bench.results) == [0, 1, 2, 3, 4]


async def test_a_slow_on_finish_holds_up_nobody(autojump_clock: MockClock) -> None:
    """A bounded number of calls may wait at a time; the next ones come when one returns."""
    bench = Bench()
    slow = 2
    release = trio.Event()

    async def on_finish(completion: Completion) -> None:
        await bench.on_finish(completion)
        if completion.task_id < slow:
            await release.wait()

    async with bench.open(on_finish):
        for _ in range(50):
            bench.post_nowait()
        await bench.run_out()
        assert len(bench.finished) == 50

        slow = 10**6
        for _ in range(MAX_LOOPS):
            bench.post_nowait()
        await bench.run_out()
        assert len(bench.finished) == 50 + MAX_LOOPS - 2
        release.set()

    assert sorted(bench.results) == list(range(50 + MAX_LOOPS))


async def test_finish_loops_are_few_again_after_a_burst(autojump_clock: MockClock) -> None:
    """They grow while calls wait, and go when they do not."""
    bench = Bench()
    release = trio.Event()

    async def on_finish(_completion: Completion) -> None:
        await release.wait()

    async with bench.open(on_finish):
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(40):
            bench.post_nowait()
        await bench.run_out()
        assert trio.lowlevel.current_statistics().tasks_living >= before + 39
        release.set()
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living <= before + 2


async def test_completions_that_pile_up_make_posts_wait(autojump_clock: MockClock) -> None:
    """A slow on_finish slows down those who post, and not memory."""
    bench = Bench()
    release = trio.Event()

    async def on_finish(completion: Completion) -> None:
        await release.wait()
        await bench.on_finish(completion)

    async with bench.open(on_finish, max_queued_tasks=3), trio.open_nursery() as posting:
        for _ in range(3):
            bench.post_nowait()
        await bench.run_out()
        assert bench.engine.counts == (0, 0)
        assert bench.pool.undelivered == 3
        with pytest.raises(trio.WouldBlock):
            bench.post_nowait()
        posting.start_soon(bench.post)
        await wait_all_tasks_blocked()
        assert bench.engine.counts == (0, 0)

        release.set()
        await bench.run_out()

    assert sorted(bench.results) == [0, 1, 2, 3]


async def test_an_on_finish_that_raises_costs_nothing_else(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it raises; it is logged once, with its traceback."""
    bench = Bench()

    async def on_finish(completion: Completion) -> None:
        await bench.on_finish(completion)
        if completion.task_id == 0:
            raise SystemExit(3)
        if completion.task_id == 1:
            raise ExceptionGroup("several", [ValueError("no good")])

    with caplog.at_level(logging.ERROR):
        async with bench.open(on_finish):
            for _ in range(3):
                bench.post_nowait()
            await bench.run_out()

    assert sorted(bench.results) == [0, 1, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "on_finish of task 0 raised",
        "on_finish of task 1 raised",
    ]
    assert all(record.exc_info for record in caplog.records)


# Waiting for a result


async def run_task_into(bench: Bench, results: list[object], data: object = None) -> None:
    try:
        results.append(await bench.pool.run_task(data))
    except Exception as exc:  # noqa: BLE001  # the tests look at it
        results.append(exc)
    except trio.Cancelled as exc:
        results.append(exc)
        raise


async def test_run_task_waits_for_the_result(autojump_clock: MockClock) -> None:
    """It goes to the caller, and not to on_finish."""
    bench = Bench()
    results: list[object] = []
    async with bench.open(), trio.open_nursery() as callers:
        callers.start_soon(run_task_into, bench, results)
        await bench.run()

    assert results == ["result"]
    assert bench.finished == []


async def test_run_task_raises_what_became_of_it(autojump_clock: MockClock) -> None:
    """A failure in the task, and the death of its worker."""
    bench = Bench()
    results: list[object] = []
    async with bench.open(), trio.open_nursery() as callers:
        for _ in range(2):
            callers.start_soon(run_task_into, bench, results)
            await wait_all_tasks_blocked()
        bench.engine.begin(0)
        await bench.die()
        await wait_all_tasks_blocked()  # the first one has heard of it
        bench.engine.begin(0)
        failure = Failure("ValueError: no good", "", b"")
        bench.engine.finish(0, status=Status.FAILED, body=failure.pack())
        bench.engine.send(0)

    assert [type(result) for result in results] == [TaskWorkerCrashed, TaskFailed]
    assert [str(result) for result in results] == [
        "the task worker died while it ran the task (signal 9)",
        "ValueError: no good",
    ]


async def test_cancelling_run_task_before_it_began_takes_it_back(
    autojump_clock: MockClock,
) -> None:
    """It never runs, nobody is killed, and on_finish hears nothing."""
    bench = Bench()
    async with bench.open():
        bench.post_nowait()
        bench.engine.begin(0)
        with trio.move_on_after(1) as scope:
            await bench.pool.run_task(None)
        assert scope.cancelled_caught
        assert bench.engine.killed == []
        bench.engine.end(0)
        await bench.run_out()

    assert len(bench.engine.ran) == 1
    assert sorted(bench.results) == [0]


async def test_cancelling_run_task_kills_it_and_waits_for_its_end(
    autojump_clock: MockClock,
) -> None:
    """When the call has returned, nothing of it runs on."""
    bench = Bench()
    async with bench.open(), trio.open_nursery() as callers:
        results: list[object] = []
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as waiting:
                waiting.start_soon(run_task_into, bench, results)
                await wait_all_tasks_blocked()
                bench.engine.begin(0)
                callers.start_soon(bench.die)
                scope.cancel()
                assert results == []
        assert scope.cancelled_caught
        assert bench.engine.killed == [0]
        assert isinstance(results[0], trio.Cancelled)
        (job,) = bench.engine.ran
        assert job.status == Status.CANCELLED

    assert bench.finished == []


async def test_a_kill_that_does_not_work_holds_the_caller_for_a_bounded_time(
    autojump_clock: MockClock,
) -> None:
    """No shield without a deadline."""
    bench = Bench()
    async with bench.open():
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as waiting:
                waiting.start_soon(bench.pool.run_task, None)
                await wait_all_tasks_blocked()
                bench.engine.begin(0)
                began = trio.current_time()
                scope.cancel()
        assert trio.current_time() - began == pytest.approx(5)
        await bench.die()


async def test_run_tasks_gives_all_outcomes_in_order(autojump_clock: MockClock) -> None:
    """Good and bad ones, by the order of what was given; posting waits for room."""
    bench = Bench()
    outcomes: list[Completion] = []

    async def call() -> None:
        outcomes.extend(await bench.pool.run_tasks(range(6)))

    async with bench.open(max_queued_tasks=1), trio.open_nursery() as callers:
        callers.start_soon(call)
        await bench.run(2)
        bench.engine.begin(0)
        await bench.die()
        await bench.run(3)

    assert [outcome.data for outcome in outcomes] == list(range(6))
    assert [type(outcome.error) for outcome in outcomes] == [
        *[type(None)] * 2,
        TaskWorkerCrashed,
        *[type(None)] * 3,
    ]
    assert bench.finished == []


async def test_run_tasks_of_nothing_is_nothing(autojump_clock: MockClock) -> None:
    """And does not wait."""
    bench = Bench()
    async with bench.open():
        assert await bench.pool.run_tasks([]) == []


async def test_run_tasks_that_fails_to_post_leaves_nothing_running(
    autojump_clock: MockClock,
) -> None:
    """The first ones are taken back when the third cannot be pickled."""
    bench = Bench()
    async with bench.open():
        bench.post_nowait()
        bench.engine.begin(0)
        with pytest.raises(TypeError, match=r"^the task's data of type lock cannot be pickled"):
            await bench.pool.run_tasks([1, 2, threading.Lock()])
        assert bench.engine.counts == (0, 1)
        bench.engine.end(0)


async def test_cancelling_run_tasks_ends_all_of_them(autojump_clock: MockClock) -> None:
    """What runs is killed, and what waits never begins."""
    bench = Bench()
    async with bench.open(), trio.open_nursery() as callers:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as waiting:
                waiting.start_soon(bench.pool.run_tasks, range(10))
                await wait_all_tasks_blocked()
                bench.engine.begin(0)
                callers.start_soon(bench.die)
                scope.cancel()
        await wait_all_tasks_blocked()
        assert bench.engine.counts == (0, 0)

    assert len(bench.engine.ran) == 1
    assert len(bench.engine.killed) == 1


# Cancelling and owners


class FakeStream:
    """What a pool knows of a connection."""

    is_closed = False


def as_connection(stream: FakeStream) -> Connection:
    return cast("Connection", stream)


async def test_cancel_ends_a_task_by_its_id(autojump_clock: MockClock) -> None:
    """True if there was one to end; its completion says that it was cancelled."""
    bench = Bench()
    async with bench.open():
        running, queued = bench.post_nowait(), bench.post_nowait()
        bench.engine.begin(0)
        assert bench.pool.cancel(queued)
        assert not bench.pool.cancel(queued)
        assert not bench.pool.cancel(99)
        assert bench.pool.cancel(running)
        await bench.die()
        await wait_all_tasks_blocked()

    assert {task_id: str(error) for task_id, error in bench.results.items()} == {
        queued: "the task was cancelled before it began: server.cancel was called",
        running: "the task was cancelled while it ran: server.cancel was called",
    }


async def test_tasks_of_a_connection_end_with_it(autojump_clock: MockClock) -> None:
    """Only its own, queued and running; completions name the stream."""
    bench = Bench()
    mine, other = FakeStream(), FakeStream()
    async with bench.open() as pool:
        for stream in (mine, other, None, mine):
            owner = None if stream is None else as_connection(stream)
            pool.task_nowait(None, stream=owner, on_finish=None)
        bench.engine.begin(0)
        pool.cancel_of_stream(as_connection(mine))
        pool.cancel_of_stream(as_connection(mine))
        await bench.die()
        await bench.run_out()
        pool.cancel_of_stream(as_connection(other))

    errors = {completion.task_id: completion.error for completion in bench.finished}
    assert {number for number, error in errors.items() if error} == {0, 3}
    assert isinstance(errors[0], TaskCancelled)
    assert errors[0].begun
    assert isinstance(errors[3], TaskCancelled)
    assert not errors[3].begun
    assert errors[3].reason == "its connection closed"
    streams = {completion.task_id: completion.stream for completion in bench.finished}
    assert streams == {0: mine, 1: other, 2: None, 3: mine}


async def test_a_closed_connection_posts_nothing(autojump_clock: MockClock) -> None:
    """Also when it closes while its post is in line."""
    bench = Bench()
    stream = FakeStream()
    text = r"^the connection that the task would belong to is closed$"

    async def post_in_vain() -> None:
        with pytest.raises(trio.ClosedResourceError, match=text):
            await bench.pool.task(None, stream=as_connection(stream), on_finish=None)

    async with bench.open(max_queued_tasks=1) as pool:
        bench.post_nowait()
        bench.post_nowait()
        async with trio.open_nursery() as posting:
            posting.start_soon(post_in_vain)
            await wait_all_tasks_blocked()
            stream.is_closed = True
            await bench.run_out()
        with pytest.raises(trio.ClosedResourceError, match=text):
            pool.task_nowait(None, stream=as_connection(stream), on_finish=None)

    assert sorted(bench.results) == [0, 1]


# Stopping


async def test_a_stop_waits_for_what_is_queued(autojump_clock: MockClock) -> None:
    """Tasks go on, those that on_finish posts meanwhile too; nothing is cut."""
    bench = Bench()

    async def on_finish(completion: Completion) -> None:
        await bench.on_finish(completion)
        if completion.data == "more":
            await bench.post("last")

    async with trio.open_nursery() as working, bench.open(on_finish):
        bench.post_nowait("more")
        bench.post_nowait()
        bench.stopping.request()
        working.start_soon(bench.run_out)

    assert bench.results == dict.fromkeys(range(3), "result")
    assert bench.stopping.cut == 0


async def test_a_stop_cuts_what_is_left_at_the_deadline(autojump_clock: MockClock) -> None:
    """Each of them is heard of; posts in line are refused; later ones too."""
    bench = Bench(max_wait_time=3)
    refused: list[str] = []

    async def post_in_vain() -> None:
        try:
            await bench.post()
        except trio.ClosedResourceError as exc:
            refused.append(str(exc))

    async def die_when_killed() -> None:
        await trio.sleep(3)
        await bench.die()

    async with trio.open_nursery() as working:
        async with bench.open(max_queued_tasks=2):
            for _ in range(3):
                bench.post_nowait()
            bench.engine.begin(0)
            working.start_soon(post_in_vain)
            working.start_soon(die_when_killed)
            await wait_all_tasks_blocked()
            bench.stopping.request()
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(3)

    texts = {task_id: str(error) for task_id, error in bench.results.items()}
    assert texts == {
        0: "the task was cancelled while it ran: the server stopped",
        1: "the task was cancelled before it began: the server stopped",
        2: "the task was cancelled before it began: the server stopped",
    }
    assert refused == ["no more tasks are accepted: the server is stopping"]
    assert bench.stopping.cut == 3
    with pytest.raises(trio.ClosedResourceError):
        bench.post_nowait()


async def test_what_is_cut_is_delivered_though_the_kill_takes_long(
    autojump_clock: MockClock,
) -> None:
    """A process with much memory needs more than a moment to die."""
    bench = Bench(max_wait_time=1)

    async def die_late() -> None:
        await trio.sleep(3)
        await bench.die()

    async with trio.open_nursery() as working, bench.open():
        bench.post_nowait()
        bench.engine.begin(0)
        working.start_soon(die_late)
        bench.stopping.request()

    assert isinstance(bench.results[0], TaskCancelled)
    assert bench.stopping.cut == 1


async def test_an_on_finish_that_hangs_does_not_hold_the_stop(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is cancelled at the deadline, counted and logged."""
    bench = Bench(max_wait_time=1)

    async def on_finish(_completion: Completion) -> None:
        await trio.sleep_forever()

    async with bench.open(on_finish):
        bench.post_nowait()
        await bench.run()
        bench.stopping.request()

    assert bench.stopping.cut == 1
    assert [record.getMessage() for record in caplog.records] == [
        "1 completions were not delivered in time"
    ]


async def test_a_cancelled_pool_counts_what_it_cut_and_delivers_nothing(
    autojump_clock: MockClock,
) -> None:
    """Running, queued, and ended but not heard of."""
    bench = Bench()
    began: list[int] = []

    async def on_finish(completion: Completion) -> None:
        began.append(completion.task_id)
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        async with bench.open(on_finish):
            for _ in range(4):
                bench.post_nowait()
            await bench.run()
            bench.engine.begin(0)
            scope.cancel()
            await trio.sleep_forever()
    bench.engine.die(0)

    assert scope.cancelled_caught
    assert began == [0]
    assert bench.engine.counts == (0, 0)
    assert len(bench.engine.killed) == 1
    assert bench.stopping.cut == 4


async def test_an_error_in_the_body_ends_everything_at_once(autojump_clock: MockClock) -> None:
    """It comes out, and nothing more is delivered."""
    bench = Bench()
    with pytest.RaisesGroup(pytest.RaisesExc(KeyError)):
        async with bench.open():
            bench.post_nowait()
            bench.post_nowait()
            bench.engine.begin(0)
            raise KeyError
    bench.engine.die(0)

    assert bench.finished == []
    assert bench.stopping.cut == 2
