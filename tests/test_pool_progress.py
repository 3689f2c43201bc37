"""Values that running tasks tell, on their way to on_progress; and tasks that tasks post."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import trio
from pool_bench import Bench
from trio.testing import MockClock, wait_all_tasks_blocked

from trioserver._tasks._wire import Answer

if TYPE_CHECKING:
    import pytest


def tell(bench: Bench, seq: int, value: object) -> None:
    bench.engine.dispatcher.progressed(0, [(seq, pickle.dumps(value))])


async def test_values_come_in_their_order_and_before_the_end(autojump_clock: MockClock) -> None:
    """One that came together with the end, too."""
    bench = Bench()
    heard: list[object] = []

    async def on_progress(task_id: int, value: object) -> None:
        heard.append((task_id, value))

    async with bench.open(lambda done: on_progress(done.task_id, "end"), on_progress=on_progress):
        bench.post_nowait()
        bench.engine.begin(0)
        for value in ("a", "b"):
            tell(bench, 1, value)
            await wait_all_tasks_blocked()
        tell(bench, 1, "c")
        bench.engine.end(0)
        await wait_all_tasks_blocked()
        tell(bench, 1, "too late")

    assert heard == [(0, "a"), (0, "b"), (0, "c"), (0, "end")]


async def test_a_slow_on_progress_gets_the_newest_value(autojump_clock: MockClock) -> None:
    """One call a task at a time; what it missed is gone, and what has ended is not told of."""
    bench = Bench()
    heard: list[object] = []

    async def on_progress(task_id: int, value: object) -> None:
        heard.append(value)
        await trio.sleep(1)

    async with bench.open(on_progress=on_progress):
        bench.post_nowait()
        bench.engine.begin(0)
        for value in range(5):
            tell(bench, 1, value)
            await trio.sleep(0.3)
        await trio.sleep(5)
        assert heard == [0, 3, 4]
        tell(bench, 1, "runs")
        await wait_all_tasks_blocked()
        tell(bench, 1, "late")
        bench.engine.end(0)
        await trio.sleep(5)

    assert heard == [0, 3, 4, "runs"]
    assert len(bench.pool._progress) == 0


async def test_an_on_progress_that_raises_costs_its_value(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the next value comes; a value that does not unpickle is the same."""
    bench = Bench()
    heard: list[object] = []

    async def on_progress(task_id: int, value: object) -> None:
        heard.append(value)
        if value == 1:
            raise ValueError("no")

    async with bench.open(on_progress=on_progress):
        bench.post_nowait()
        bench.engine.begin(0)
        bench.engine.dispatcher.progressed(0, [(1, b"no pickle")])
        for value in (1, 2):
            await wait_all_tasks_blocked()
            tell(bench, 1, value)
        await wait_all_tasks_blocked()
        bench.engine.end(0)

    assert heard == [1, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "on_progress of task 0 raised"
    ] * 2


async def test_without_on_progress_values_are_dropped(autojump_clock: MockClock) -> None:
    """And cost nothing."""
    bench = Bench()
    async with bench.open():
        bench.post_nowait()
        bench.engine.begin(0)
        tell(bench, 1, "a")
        assert len(bench.pool._progress) == 0
        bench.engine.end(0)


async def test_an_on_progress_that_hangs_is_cut_by_the_stop(autojump_clock: MockClock) -> None:
    """At the deadline, and counted."""
    bench = Bench(max_wait_time=2)

    async def on_progress(task_id: int, value: object) -> None:
        await trio.sleep_forever()

    began = trio.current_time()
    async with bench.open(on_progress=on_progress):
        bench.post_nowait()
        bench.engine.begin(0)
        tell(bench, 1, "a")
        await wait_all_tasks_blocked()
        bench.engine.end(0)
        bench.stopping.request()

    assert bench.stopping.cut == 1
    assert trio.current_time() - began < 3
    assert [completion.task_id for completion in bench.finished] == [0]


async def test_a_task_posts_a_task(autojump_clock: MockClock) -> None:
    """It belongs to nobody, completes as any other, and is refused where it would have to wait."""
    bench = Bench()
    async with bench.open(max_queued_tasks=1) as pool:
        pool.task_nowait("first", stream=None, on_finish=None)
        bench.engine.begin(0)
        bench.engine.dispatcher.posted(0, 1, pickle.dumps("second"))
        bench.engine.dispatcher.posted(0, 1, pickle.dumps("third"))
        bench.engine.dispatcher.posted(0, 99, pickle.dumps("of a task that is over"))
        pool.close()
        bench.engine.dispatcher.posted(0, 1, pickle.dumps("fourth"))
        bench.engine.end(0)
        await bench.run_out()

    assert bench.engine.answers == [
        (1, Answer.ACCEPTED, 1, ""),
        (1, Answer.FULL, 0, "the queue is full (max_queued_tasks 1)"),
        (99, Answer.CLOSED, 0, "the task that posts is over"),
        (1, Answer.CLOSED, 0, "no more tasks are accepted: the server is stopping"),
    ]
    assert [completion.data for completion in bench.finished] == ["first", "second"]
    assert bench.finished[1].stream is None
