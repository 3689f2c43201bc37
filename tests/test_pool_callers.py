"""Whoever waits for a result: `run_task`, `run_tasks`, and what their cancellation does."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
from pool_bench import Bench
from trio.testing import MockClock, wait_all_tasks_blocked

from trioserver import _pacing
from trioserver._errors import TaskFailed, TaskTimeout, TaskWorkerCrashed
from trioserver._tasks import _entrance
from trioserver._tasks._patience import Patience
from trioserver._tasks._payloads import load
from trioserver._tasks._run_times import AHEAD_BYTES
from trioserver._tasks._wire import Failure, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trioserver._tasks._values import Completion


pytestmark = pytest.mark.usefixtures("form")


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
        await bench.begin()
        await bench.die()
        await wait_all_tasks_blocked()  # the first one has heard of it
        await bench.begin()
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
        await bench.begin()
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
                await bench.begin()
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
                await bench.begin()
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
        await bench.begin()
        await bench.die()
        await bench.run(3)

    assert [outcome.data for outcome in outcomes] == list(range(6))
    assert [type(outcome.error) for outcome in outcomes] == [
        *[type(None)] * 2,
        TaskWorkerCrashed,
        *[type(None)] * 3,
    ]
    assert bench.finished == []


@pytest.mark.parametrize(
    ("bound", "value", "in_flight"),
    [("max_queued_tasks", 3, 4), ("max_queued_bytes", 3000, 4), ("max_queued_bytes", 10, 1)],
)
async def test_run_tasks_keeps_to_the_bounds(
    autojump_clock: MockClock, bound: str, value: int, in_flight: int
) -> None:
    """Of tasks and of bytes; one that is larger than all of it has its turn alone."""
    bench = Bench()
    most = 0
    outcomes: list[Completion] = []

    async def call() -> None:
        outcomes.extend(await bench.pool.run_tasks([bytes(700)] * 100))

    bounds: dict[str, Any] = {bound: value}
    async with bench.open(**bounds), trio.open_nursery() as callers:
        callers.start_soon(call)
        while len(bench.engine.ran) < 100:
            await wait_all_tasks_blocked()
            most = max(most, len(bench.pool._jobs))
            bench.engine.run(0)

    assert [outcome.error for outcome in outcomes] == [None] * 100
    assert most == in_flight  # of those that may be queued, and the one that runs


async def test_run_tasks_gives_others_their_turn_while_it_posts(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the items take to make: what is there is posted, and then others run."""
    now = 100.0
    for module in (_pacing, _entrance):
        monkeypatch.setattr(module, "perf_counter", lambda: now)
    bench = Bench()
    seen: list[int] = []

    def items() -> Iterator[int]:
        nonlocal now
        for number in range(5):
            now += _pacing.TURN
            yield number

    async def look() -> None:
        while len(bench.pool._jobs) < 5:
            seen.append(len(bench.pool._jobs))
            await trio.lowlevel.checkpoint()

    async with bench.open(), trio.open_nursery() as callers:
        callers.start_soon(bench.pool.run_tasks, items())
        callers.start_soon(look)
        await bench.run(5)

    assert {*seen} & {1, 2, 3, 4}


async def test_options_of_run_tasks_are_those_of_each(autojump_clock: MockClock) -> None:
    """A time to wait in the queue that is over ends those that have not begun."""
    bench = Bench()
    outcomes: list[Completion] = []

    async def call() -> None:
        options = bench.pool.options(None, 1.0, 0, None)
        outcomes.extend(await bench.pool.run_tasks(range(3), options))

    async with bench.open(), trio.open_nursery() as callers:
        callers.start_soon(call)
        await bench.begin()
        assert bench.engine.alarm is not None
        assert bench.engine.alarm <= bench.engine.now + 1
        bench.engine.pass_time(1)
        bench.engine.finish(0)
        bench.engine.send(0)

    assert [type(outcome.error) for outcome in outcomes] == [type(None), TaskTimeout, TaskTimeout]


async def test_run_tasks_overtakes_nobody(autojump_clock: MockClock) -> None:
    """Who is in line has been there before."""
    bench = Bench()
    posted: list[object] = []

    async def post(data: object) -> None:
        await bench.post(data)
        posted.append(data)

    async with bench.open(max_queued_tasks=1), trio.open_nursery() as callers:
        bench.post_nowait("runs")
        await bench.begin()
        bench.post_nowait("waits")
        for data in ("first", "second"):
            callers.start_soon(post, data)
            await wait_all_tasks_blocked()
        callers.start_soon(bench.pool.run_tasks, ["third", "fourth"])
        await wait_all_tasks_blocked()
        bench.engine.end(0)
        await bench.run_out()

    ran = [load(job.payload) for job in bench.engine.ran]
    assert ran == ["runs", "waits", "first", "second", "third", "fourth"]


async def test_large_items_are_made_as_there_is_room(autojump_clock: MockClock) -> None:
    """An iterable of them is not in memory long before they are let in."""
    bench = Bench()
    made = 0

    def items() -> Iterator[bytes]:
        nonlocal made
        for _ in range(50):
            made += 1
            yield bytes(AHEAD_BYTES // 2)

    async with bench.open(max_queued_tasks=1), trio.open_nursery() as callers:
        callers.start_soon(bench.pool.run_tasks, items())
        for ran in range(50):
            await bench.begin()
            assert made <= ran + 4  # one runs, one is queued, and two are next
            bench.engine.end(0)


async def test_run_tasks_whose_ids_do_not_come_leaves_nothing(autojump_clock: MockClock) -> None:
    """They may come from another process, which may be gone."""
    bench = Bench()
    async with bench.open() as pool:

        def no_ids() -> Iterator[int]:
            yield 7
            raise trio.BrokenResourceError("the manager is gone")

        pool._dispatcher.ids = no_ids()  # type: ignore[misc]  # of either kind
        with pytest.raises(trio.BrokenResourceError):
            await pool.run_tasks(range(3))
        assert pool._jobs == {}
        assert pool._entrance._bytes == 0
    assert bench.engine.ran == []


async def test_who_waits_for_the_only_task_may_stay_awake(autojump_clock: MockClock) -> None:
    """Beside others it would have them wait, and for many it would be in vain."""
    bench = Bench()
    async with bench.open() as pool, trio.open_nursery() as callers:
        asked: list[str] = []

        class Asked(Patience):
            def begins(self) -> bool:
                asked.append("begins")
                return False

        pool._dispatcher.patience = Asked()  # type: ignore[misc]  # of either kind
        callers.start_soon(pool.run_task, 1)
        await wait_all_tasks_blocked()
        assert asked == ["begins"]
        callers.start_soon(pool.run_task, 2)
        await bench.run(2)
        callers.start_soon(pool.run_tasks, [1, 2])
        await bench.run(2)

    assert asked == ["begins"]


async def test_a_post_checks_for_cancellation(autojump_clock: MockClock) -> None:
    """Also when it is not its turn to yield."""
    bench = Bench()
    async with bench.open():
        await bench.post()
        with trio.CancelScope() as scope:
            scope.cancel()
            await bench.post()
        assert scope.cancelled_caught
        await bench.run()

    assert len(bench.engine.ran) == 1


async def test_run_tasks_of_nothing_is_nothing(autojump_clock: MockClock) -> None:
    """And does not wait."""
    bench = Bench()
    async with bench.open():
        assert await bench.pool.run_tasks([]) == []


async def test_run_tasks_that_fails_to_post_leaves_nothing_running(
    autojump_clock: MockClock,
) -> None:
    """Those before one that cannot be pickled are taken back, or have never come in."""
    bench = Bench()
    async with bench.open(max_queued_tasks=1000):
        bench.post_nowait()
        await bench.begin()
        for before in (2, 200):
            with pytest.raises(TypeError, match=r"^the task's data of type lock cannot be pickled"):
                await bench.pool.run_tasks([*range(before), threading.Lock(), "not reached"])
            assert bench.engine.counts == (0, 1)
        bench.engine.end(0)
        await bench.run_out()

    assert len(bench.engine.ran) == 1


async def test_cancelling_run_tasks_ends_all_of_them(autojump_clock: MockClock) -> None:
    """What runs is killed, and what waits never begins."""
    bench = Bench()
    async with bench.open(), trio.open_nursery() as callers:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as waiting:
                waiting.start_soon(bench.pool.run_tasks, range(10))
                await wait_all_tasks_blocked()
                await bench.begin()
                callers.start_soon(bench.die)
                scope.cancel()
        await wait_all_tasks_blocked()
        assert bench.engine.counts == (0, 0)

    assert len(bench.engine.ran) == 1
    assert len(bench.engine.killed) == 1
