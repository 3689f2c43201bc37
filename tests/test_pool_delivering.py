"""How completions reach ``on_finish``: several at once, none held up, none without bound."""

from __future__ import annotations

import gc
import logging
import weakref
from typing import TYPE_CHECKING

import pytest
import trio
from pool_bench import Bench, FakeStream, as_connection
from trio.testing import MockClock, wait_all_tasks_blocked

from trioserver._errors import TaskFailed
from trioserver._tasks._finishing import MAX_LOOPS
from trioserver._tasks._wire import Failure, Status

if TYPE_CHECKING:
    from trioserver._tasks._values import Completion


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


async def test_what_on_finish_has_begun_takes_its_turn_when_that_has_returned(
    autojump_clock: MockClock,
) -> None:
    """One long list of tasks must not go before whatever everybody else posts."""
    bench = Bench()

    async def on_finish(completion: Completion) -> None:
        await bench.on_finish(completion)
        if completion.data == "first":
            background.start_soon(bench.pool.run_tasks, ["background"] * 20)
            await trio.sleep(1)  # so it has begun before this returns

    async with bench.open(on_finish, max_queued_tasks=1), trio.open_nursery() as background:
        await bench.post("first")
        await bench.run()
        await trio.sleep(1)
        background.start_soon(bench.post, "other")
        await bench.run(8)
        assert [completion.data for completion in bench.finished] == ["first", "other"]
        await bench.run_out()


@pytest.mark.parametrize("status", [Status.OK, Status.FAILED])
async def test_nothing_is_kept_of_what_was_heard(autojump_clock: MockClock, status: Status) -> None:
    """Neither by who sleeps nor in a cycle, for its data may be large, and collected late."""
    bench = Bench()

    async def on_finish(completion: Completion) -> None:
        try:
            assert completion.result == "result"
        except TaskFailed:
            assert completion.error is not None
            assert completion.error.__traceback__ is None

    async with bench.open(on_finish):
        gc.disable()
        try:
            await bench.post()
            job = weakref.ref(bench.pool._jobs[0])
            await bench.begin()
            if status == Status.OK:
                bench.engine.finish(0)
            else:
                failure = Failure("ValueError: no good", "", b"")
                bench.engine.finish(0, status=status, body=failure.pack())
            bench.engine.send(0)
            bench.engine.messages.clear()
            bench.engine.ran.clear()
            await wait_all_tasks_blocked()
            assert job() is None
        finally:
            gc.enable()


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
