"""What users were promised of tasks, with many in one message (`task_window` 0) and without (1).

Neither order, nor exceptions, nor completions may differ; coroutine tasks that block, one at a
time, keep the same promises.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import check_app
import pytest
import task_app
import trio
from task_pools import Clock, Tasks, numbers_in, open_tasks
from workers import Gate, until

from trioserver import TaskCancelled, TaskFailed, TaskTimeout, TaskWorkerCrashed

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("form")

BURST = 2000


class Contract:
    """Opens pools of one kind."""

    def __init__(self, window: int, app: type) -> None:
        self.window = window
        self._app = app

    def open(self, number: int = 1) -> AbstractAsyncContextManager[Tasks]:
        settings: dict[str, Any] = {"task_window": self.window, "task_concurrency": 1}
        return open_tasks(number, self._app, **settings)


@pytest.fixture(
    params=[
        pytest.param((0, check_app.App), id="windows"),
        pytest.param((1, check_app.App), id="no windows"),
        pytest.param((0, check_app.CoroutineApp), id="coroutines"),
    ]
)
def contract(request: pytest.FixtureRequest) -> Contract:
    return Contract(*request.param)


async def warm(tasks: Tasks) -> None:
    """Have run times known to be short, so that windows are as wide as they get."""
    await tasks.pool.run_tasks([(task_app.echo, None)] * 500)


async def test_order_on_one_worker(contract: Contract, tmp_path: Path) -> None:
    """Begins are in the order of the posts, and so are completions; none is lost or comes twice."""
    path = str(tmp_path / "order")
    async with contract.open() as tasks:
        await warm(tasks)
        posted = [await tasks.post(check_app.write_id, path) for _ in range(BURST)]
        await tasks.until_finished(BURST)

    assert [completion.task_id for completion in tasks.finished] == posted
    assert [completion.result for completion in tasks.finished] == posted
    assert numbers_in(path) == posted


async def test_pinned_tasks_take_their_turn(contract: Contract) -> None:
    """What is for one worker runs there, in the order of its posts."""
    async with contract.open(2) as tasks:
        await warm(tasks)
        pinned = set()
        for number in range(BURST // 2):
            pinned.add(await tasks.post(check_app.worker_and, number, task_worker=number % 2))
            await tasks.post(check_app.worker_and, number)
        await tasks.until_finished(BURST)

    results = [completion.result for completion in tasks.finished if completion.task_id in pinned]
    for worker in range(2):
        own = [number for at, number in results if at == worker]
        assert own == list(range(worker, BURST // 2, 2))


async def test_results_and_errors_are_each_its_own_tasks(contract: Contract) -> None:
    """In a burst of several kinds, each ends as itself."""
    async with contract.open(2) as tasks:
        await warm(tasks)
        pids = tasks.pids
        kinds: list[tuple[Any, ...]] = [
            (task_app.echo, "result"),
            (task_app.fail, ValueError, "no good"),
            (task_app.lock,),
            (task_app.fail, SystemExit, 3),
            (task_app.fail, task_app.NeedsTwo, "one", "two"),
            (task_app.echo, None),
        ]
        for number in range(600):
            await tasks.post(*kinds[number % 6])
        await tasks.until_finished(600)
        assert tasks.pids == pids
        statistics = tasks.pool.statistics()

    expected = {
        0: "result",
        1: "ValueError: no good",
        2: "TypeError: the task's result of type lock cannot be pickled",
        3: "SystemExit: 3",
        4: "NeedsTwo: one and two",
        5: None,
    }
    # Those that warmed the workers up had ids as well.
    first = min(completion.task_id for completion in tasks.finished)
    for completion in tasks.finished:
        wanted = expected[(completion.task_id - first) % 6]
        if completion.error is None:
            assert completion.result == wanted
        else:
            assert isinstance(completion.error, TaskFailed)
            assert completion.error.summary.startswith(str(wanted))
    assert (statistics.failed, statistics.completed) == (400, 700)


async def test_a_crash_costs_only_the_task_that_ran(contract: Contract) -> None:
    """Those before it keep their results, and those behind it run, once and on another process."""
    crashes = {100: (task_app.leave, 3), 200: (task_app.crash,)}
    async with contract.open() as tasks:
        await warm(tasks)
        (pid,) = tasks.pids
        for number in range(300):
            await tasks.post(*crashes.get(number, (check_app.pid_and, number)))
        await tasks.until_finished(300)
        statistics = tasks.pool.statistics()

    outcomes = tasks.finished
    exit_codes: list[int | None] = []
    for number in crashes:
        error = outcomes.pop(number - len(exit_codes)).error
        assert isinstance(error, TaskWorkerCrashed)
        exit_codes.append(error.exit_code)
    assert exit_codes == [3, -signal.SIGSEGV]
    # In order, though three processes have had a part in it.
    assert [outcome.result[1] for outcome in outcomes] == [
        number for number in range(300) if number not in crashes
    ]
    first, second, third = (
        {outcome.result[0] for outcome in part}
        for part in (outcomes[:100], outcomes[100:199], outcomes[199:])
    )
    assert first == {pid}
    assert len(first) == len(second) == len(third) == 1
    assert len(first | second | third) == 3
    assert {outcome.attempt for outcome in outcomes} == {1}
    assert (statistics.crashed, statistics.retried) == (2, 0)


async def test_nothing_runs_twice_however_often_workers_die(
    contract: Contract, tmp_path: Path
) -> None:
    """Each death costs one task, which leaves its trace once as all others do."""
    path = str(tmp_path / "runs")
    async with contract.open(2) as tasks:
        await warm(tasks)
        for number in range(1000):
            await tasks.post(check_app.write_id_and_die, path, number % 200 == 100)
        ended = await tasks.until_finished(1000)

    assert sorted(numbers_in(path)) == sorted(ended)
    errors = [completion.error for completion in ended.values() if completion.error is not None]
    assert [type(error) for error in errors] == [TaskWorkerCrashed] * 5


async def test_a_deadline_costs_only_the_task_that_was_late(contract: Contract) -> None:
    """In the middle of a burst of tasks that have deadlines too: a minute before, 0.3 s it."""
    async with contract.open() as tasks:
        await warm(tasks)
        (pid,) = tasks.pids
        for number in range(200):
            if number == 100:
                await tasks.post(task_app.slept, 60, timeout=0.3)
            else:
                await tasks.post(check_app.pid_and, number, timeout=60)
        await tasks.until_finished(200)

    outcomes = tasks.finished
    late = outcomes[100].error
    assert isinstance(late, TaskTimeout)
    assert (late.seconds, late.begun) == (0.3, True)
    assert outcomes[100].ran >= 0.3
    assert [outcome.result for outcome in outcomes[:100]] == [(pid, n) for n in range(100)]
    assert [outcome.result[1] for outcome in outcomes[101:]] == list(range(101, 200))
    assert pid not in {outcome.result[0] for outcome in outcomes[101:]}


async def test_the_time_that_others_take_is_not_a_tasks_own(contract: Contract, gate: Gate) -> None:
    """Handed over behind a task that is longer than their own deadline, they are in time."""
    async with contract.open() as tasks:
        await warm(tasks)
        clock = Clock()
        await tasks.post(task_app.wait, gate.path)
        for _ in range(50):
            await tasks.post(task_app.pid, timeout=1)
        await until(lambda: clock.seconds > 1.2, "more than that has passed")
        gate.let_through()
        await tasks.until_finished(51)

    assert {completion.error for completion in tasks.finished} == {None}


async def test_retries_in_the_middle_of_others(contract: Contract) -> None:
    """Tasks that fail, or die, at first have results in the end; the others notice nothing."""
    async with contract.open(2) as tasks:
        await warm(tasks)
        for number in range(200):
            if number % 50 == 25:
                await tasks.post(check_app.succeed_at, 2, task_app.fail, ValueError, retries=2)
            elif number == 60:
                await tasks.post(check_app.succeed_at, 2, task_app.leave, 3, retries=2)
            else:
                await tasks.post(check_app.attempt)
        ended = await tasks.until_finished(200)
        statistics = tasks.pool.statistics()

    assert {completion.error for completion in ended.values()} == {None}
    assert sorted(completion.result for completion in ended.values()) == [1] * 195 + [2] * 5
    assert all(completion.attempt == completion.result for completion in ended.values())
    assert (statistics.retried, statistics.crashed, statistics.failed) == (5, 0, 0)


async def test_cancels_in_the_middle_of_others(
    contract: Contract, gate: Gate, tmp_path: Path
) -> None:
    """Whatever a worker has in hand: what has not begun never runs, and the others do."""
    path = str(tmp_path / "runs")
    async with contract.open() as tasks:
        await warm(tasks)
        held = await tasks.post(task_app.wait, gate.path)
        posted = [await tasks.post(check_app.write_id, path) for _ in range(300)]
        (pid,) = await gate.wait_for()
        cancelled = posted[::3]
        for task_id in cancelled:
            assert tasks.pool.cancel(task_id)
        ended = await tasks.until_finished(100)
        assert not any(map(tasks.pool.cancel, cancelled))
        assert sorted(ended) == cancelled
        gate.let_through()
        ended = await tasks.until_finished(301)
        assert tasks.pids == [pid]

    for task_id in cancelled:
        error = ended[task_id].error
        assert isinstance(error, TaskCancelled)
        assert not error.begun
    assert ended[held].result == pid
    assert numbers_in(path) == sorted(set(posted) - set(cancelled))


async def test_a_cancelled_task_that_runs_costs_no_other(contract: Contract, gate: Gate) -> None:
    """Its worker is killed; what was in hand behind it runs on the next one."""
    async with contract.open() as tasks:
        await warm(tasks)
        before = [await tasks.post(task_app.pid) for _ in range(50)]
        held = await tasks.post(task_app.wait, gate.path)
        behind = [await tasks.post(task_app.pid) for _ in range(50)]
        (pid,) = await gate.wait_for()
        assert tasks.pool.cancel(held)
        ended = await tasks.until_finished(101)

    error = ended[held].error
    assert isinstance(error, TaskCancelled)
    assert error.begun
    assert {ended[task_id].result for task_id in before} == {pid}
    (other,) = {ended[task_id].result for task_id in behind}
    assert other != pid


async def test_no_idle_worker_waits_beside_a_long_task(contract: Contract, gate: Gate) -> None:
    """C20: one long task and a thousand short ones on two workers; all short ones end meanwhile."""
    async with contract.open(2) as tasks:
        await warm(tasks)
        for number in range(1001):
            if number == 500:
                await tasks.post(task_app.wait, gate.path)
            else:
                await tasks.post(task_app.pid)
        (pid,) = await gate.wait_for()
        ended = await tasks.until_finished(1000)
        # Once more, now that the worker is known to be held up.
        for _ in range(1000):
            await tasks.post(task_app.pid)
        await tasks.until_finished(2000)
        assert pid not in {completion.result for completion in tasks.finished[1000:]}
        assert 500 + 500 not in ended
        gate.let_through()
        ended = await tasks.until_finished(2001)

    assert ended[1000].result == pid
    assert {completion.error for completion in ended.values()} == {None}


async def test_a_worker_that_is_stopped_with_tasks_in_hand(contract: Contract) -> None:
    """What it has begun waits for it; what it has not runs on the other one."""
    async with contract.open(2) as tasks:
        await warm(tasks)
        stopped, other = tasks.pids
        assert stopped is not None
        # In the middle of a task, which goes on when the worker does.
        held = await tasks.post(check_app.stop_itself, task_worker=0)
        await until(lambda: is_stopped(stopped), "it has stopped itself")
        for _ in range(500):
            await tasks.post(task_app.pid)
        await tasks.until_finished(500)
        assert {completion.result for completion in tasks.finished} == {other}
        os.kill(stopped, signal.SIGCONT)
        ended = await tasks.until_finished(501)

    assert ended[held].result == stopped


def is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "T"


async def test_a_caller_that_leaves_takes_its_own_with_it(contract: Contract, gate: Gate) -> None:
    """run_tasks that is cancelled in the middle ends all of its tasks, and none of others."""
    async with contract.open() as tasks:
        await warm(tasks)
        async with trio.open_nursery() as calling:
            items = [(task_app.echo, 1)] * 50 + [(task_app.wait, gate.path)]
            items += [(task_app.wait, gate.path)] * 50
            calling.start_soon(tasks.pool.run_tasks, items)
            (pid,) = await gate.wait_for()
            others = [await tasks.post(task_app.pid) for _ in range(50)]
            calling.cancel_scope.cancel()
        ended = await tasks.until_finished(50)
        statistics = tasks.pool.statistics()

    assert sorted(ended) == others
    assert pid not in {completion.result for completion in ended.values()}
    assert statistics.cancelled == 51
    assert gate.waiting == [pid]
