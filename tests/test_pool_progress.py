"""How progress reaches ``on_progress``, and what comes after it."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import trio
from pool_bench import Bench
from trio.testing import MockClock, wait_all_tasks_blocked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioserver._tasks._values import Completion


def tell(bench: Bench, *values: tuple[int, object]) -> None:
    """The worker tells values of tasks by their seqs."""
    bench.engine.dispatcher.progressed(0, [(seq, pickle.dumps(value)) for seq, value in values])


class Log:
    """What is called, when it begins and when it ends; ends are held up until let go."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.lines: list[object] = []
        self.go = trio.Event()

    async def on_progress(self, task_id: int, value: object) -> None:
        self.lines.append((task_id, value))
        await self.go.wait()
        self.lines.append((task_id, "heard"))

    async def on_finish(self, completion: Completion) -> None:
        self.lines.append((completion.task_id, "finished"))

    async def take(self) -> Sequence[object]:
        await wait_all_tasks_blocked()
        lines, self.lines = self.lines, []
        return lines


async def test_values_that_come_meanwhile_are_replaced_by_the_newest(
    autojump_clock: MockClock,
) -> None:
    """One call a task at a time, however many values there are."""
    bench = Bench()
    log = Log(bench)
    async with bench.open(log.on_finish, on_progress=log.on_progress):
        task_id = await bench.post()
        bench.engine.begin(0)
        for value in range(3):
            tell(bench, (1, value))
            assert await log.take() == ([(task_id, 0)] if value == 0 else [])
        log.go.set()
        assert await log.take() == [(task_id, "heard"), (task_id, 2), (task_id, "heard")]
        bench.engine.end(0)


async def test_on_finish_is_the_last_word_of_a_task(autojump_clock: MockClock) -> None:
    """It begins when the on_progress of its task has returned, and holds up no other task's."""
    bench = Bench()
    log = Log(bench)
    async with bench.open(log.on_finish, on_progress=log.on_progress):
        tells = await bench.post()
        other = await bench.post()
        bench.engine.begin(0)
        tell(bench, (1, "half"))
        assert await log.take() == [(tells, "half")]
        tell(bench, (1, "nearly"))
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
        tell(bench, (1, "half"))
        bench.engine.end(0)

    assert [completion.error for completion in bench.finished] == [None]


async def test_an_on_progress_that_never_returns_is_cut(autojump_clock: MockClock) -> None:
    """Both calls count: its own, and that of the on_finish which waits for it."""
    bench = Bench()
    log = Log(bench)
    async with bench.open(log.on_finish, on_progress=log.on_progress):
        await bench.post()
        bench.engine.begin(0)
        tell(bench, (1, "half"))
        bench.engine.end(0)
        bench.stopping.request()

    assert log.lines == [(0, "half")]
    assert bench.stopping.cut == 2
