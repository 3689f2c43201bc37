"""``on_finish`` is the last that is heard of a task: no ``on_progress`` runs beside it."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import trio
from pool_bench import Bench
from trio.testing import MockClock, wait_all_tasks_blocked

if TYPE_CHECKING:
    from trioserver._tasks._values import Completion


class Log:
    """What is called, when it begins and when it ends; ends are held up until let go."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, object]] = []
        self.go = trio.Event()

    async def on_progress(self, task_id: int, value: object) -> None:
        self.lines.append((task_id, value))
        await self.go.wait()
        self.lines.append((task_id, "heard"))

    async def on_finish(self, completion: Completion) -> None:
        self.lines.append((completion.task_id, "finished"))

    async def take(self) -> list[tuple[int, object]]:
        """What came since the last time."""
        await wait_all_tasks_blocked()
        lines, self.lines = self.lines, []
        return lines


def tell(bench: Bench, value: object) -> None:
    """The first task tells ``value``."""
    bench.engine.dispatcher.progressed(0, [(1, pickle.dumps(value))])


async def test_on_finish_waits_for_the_on_progress_of_its_task(autojump_clock: MockClock) -> None:
    """And for no other task's; a value that came meanwhile is not told any more."""
    bench = Bench()
    log = Log()
    async with bench.open(log.on_finish, on_progress=log.on_progress):
        tells = await bench.post()
        other = await bench.post()
        bench.engine.begin(0)
        tell(bench, "half")
        assert await log.take() == [(tells, "half")]
        tell(bench, "nearly")
        bench.engine.end(0)
        bench.engine.run(0)
        assert await log.take() == [(other, "finished")]
        log.go.set()
        assert await log.take() == [(tells, "heard"), (tells, "finished")]


async def test_an_on_progress_that_raises_costs_no_completion(autojump_clock: MockClock) -> None:
    """The task's on_finish is called all the same."""
    bench = Bench()

    async def fail(_task_id: int, _value: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("no good")

    async with bench.open(on_progress=fail):
        await bench.post()
        bench.engine.begin(0)
        tell(bench, "half")
        bench.engine.end(0)

    assert [completion.error for completion in bench.finished] == [None]


async def test_an_on_progress_that_never_returns_costs_no_completion(
    autojump_clock: MockClock,
) -> None:
    """It is cut at the end of the stop, and the completion is delivered before that."""
    bench = Bench()
    log = Log()
    async with bench.open(log.on_finish, on_progress=log.on_progress):
        task_id = await bench.post()
        bench.engine.begin(0)
        tell(bench, "half")
        bench.engine.end(0)
        bench.stopping.request()

    assert log.lines == [(task_id, "half"), (task_id, "finished")]
    assert bench.stopping.cut == 1


async def test_a_pool_that_ends_at_once_delivers_no_last_word(autojump_clock: MockClock) -> None:
    """Nothing is called after an on_progress that was cancelled."""
    bench = Bench()
    log = Log()
    with trio.CancelScope() as scope:
        async with bench.open(log.on_finish, on_progress=log.on_progress):
            task_id = await bench.post()
            bench.engine.begin(0)
            tell(bench, "half")
            bench.engine.end(0)
            await wait_all_tasks_blocked()
            scope.cancel()

    assert log.lines == [(task_id, "half")]
    assert bench.stopping.cut == 2
