"""What a stop of the pool waits for, what it cuts, and what is delivered then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from pool_bench import Bench
from trio.testing import MockClock, wait_all_tasks_blocked

from trioserver._errors import TaskCancelled

if TYPE_CHECKING:
    from trioserver._tasks._values import Completion


pytestmark = pytest.mark.usefixtures("form")


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
            await bench.begin()
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
        await bench.begin()
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
            await bench.begin()
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
    with pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        async with bench.open():
            bench.post_nowait()
            bench.post_nowait()
            await bench.begin()
            raise KeyError
    bench.engine.die(0)

    assert bench.finished == []
    assert bench.stopping.cut == 2


async def test_many_completions_are_heard_as_long_as_some_are(autojump_clock: MockClock) -> None:
    """The deadline ends tasks; that each of them is heard of takes what it takes, within bounds."""
    bench = Bench(max_wait_time=1)

    async def on_finish(completion: Completion) -> None:
        await trio.sleep(0.2)
        bench.finished.append(completion)

    async with bench.open(on_finish, max_queued_tasks=1000):
        for _ in range(1000):
            bench.post_nowait()
        bench.stopping.request()

    assert len(bench.finished) == 1000
    assert bench.stopping.cut == 1000


async def test_what_is_heard_one_by_one_has_an_end(autojump_clock: MockClock) -> None:
    """A stop takes no longer than a few seconds more than it has, however slow everybody is."""
    bench = Bench(max_wait_time=1)
    began = trio.current_time()

    async def on_finish(completion: Completion) -> None:
        await trio.sleep(0.25 * (1 + completion.task_id))

    async with bench.open(on_finish, max_queued_tasks=1000):
        for _ in range(50):
            bench.post_nowait()
        bench.stopping.request()

    assert 1 < trio.current_time() - began < 8
    assert bench.stopping.cut > 50
