"""Posting to the task pool: what is admitted, and who waits in line."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NoReturn

import pytest
import trio
from pool_bench import Bench
from trio.testing import MockClock, wait_all_tasks_blocked

if TYPE_CHECKING:
    from trioserver._tasks._values import Completion


pytestmark = pytest.mark.usefixtures("form")


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
        await wait_all_tasks_blocked()
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


class Exits:
    """Pickling it ends the process that lets it."""

    def __reduce__(self) -> NoReturn:
        raise SystemExit(3)


async def test_data_that_exits_while_it_is_pickled_cannot_be_pickled(
    autojump_clock: MockClock,
) -> None:
    """It is refused as anything else that cannot travel."""
    bench = Bench()
    async with bench.open():
        with pytest.raises(
            TypeError, match=r"^the task's data of type Exits cannot be pickled: 3$"
        ):
            bench.post_nowait(Exits())

    assert bench.finished == []
