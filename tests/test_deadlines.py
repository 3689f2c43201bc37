"""Deadlines that kill, whatever the task is doing, and cost nobody else anything."""

from __future__ import annotations

import os
import signal

import check_app
import pytest
import task_app
import trio
from serving import is_running
from task_pools import Clock, numbers_in, open_tasks
from workers import Gate, until

from trioserver import TaskTimeout

TIMEOUT = 0.3
SOON = 15.0
"""Seconds in which a deadline of `TIMEOUT` has come true on any machine; the tasks hang for 60."""

HANGING = [
    check_app.hang_in_sleep,
    check_app.hang_in_c,
    check_app.hang_in_recv,
    check_app.hang_stopped,
    check_app.hang_deaf,
    check_app.hang_in_a_loop,
]


pytestmark = pytest.mark.usefixtures("form")


@pytest.mark.parametrize("app", [check_app.App, check_app.CoroutineApp])
async def test_a_deadline_ends_whatever_the_task_does(tmp_path: object, app: type) -> None:
    """C7: TaskTimeout with its seconds; worker and subprocess are gone, other workers are not."""
    async with open_tasks(2, app) as tasks:
        for function in HANGING:
            gate = Gate(tmp_path, function.__name__)  # type: ignore[arg-type]  # a path
            before = await tasks.until_whole()
            clock = Clock()
            outcome = await tasks.outcome(function, gate.path, timeout=TIMEOUT, task_worker=1)
            took = clock.seconds
            child, pid = gate.waiting
            gate.close()

            assert isinstance(outcome.error, TaskTimeout), function
            assert (outcome.error.seconds, outcome.error.begun) == (TIMEOUT, True)
            assert TIMEOUT <= took < SOON
            assert TIMEOUT <= outcome.ran < SOON
            assert outcome.task_worker == 1
            assert pid == before[1]
            await tasks.until_gone(pid, child)
            after = await tasks.until_whole()
            assert after[0] == before[0], "the other worker has nothing to do with it"
            assert await tasks.run(task_app.pid, task_worker=1) == after[1] != pid
    assert tasks.finished == []


async def test_a_deadline_counts_from_the_begin_of_the_run(gate: Gate) -> None:
    """However long the task has waited in the queue, or in the hands of a busy worker."""
    async with open_tasks() as tasks:
        clock = Clock()
        first = await tasks.post(task_app.wait, gate.path)
        behind = [await tasks.post(task_app.pid, timeout=1) for _ in range(3)]
        await until(lambda: clock.seconds > 1.2, "more than that has passed")
        gate.let_through()
        ended = await tasks.until_finished(4)

    assert {ended[task_id].result for task_id in behind} == {ended[first].result}
    assert all(ended[task_id].waited > 1 for task_id in behind)


async def test_a_queue_timeout_ends_a_task_unrun(gate: Gate, tmp_path: object) -> None:
    """It never runs, whether it was handed to a busy worker or not, and no worker dies for it."""
    path = f"{tmp_path}/runs"
    async with open_tasks() as tasks:
        pids = tasks.pids
        held = await tasks.post(task_app.wait, gate.path, queue_timeout=60)
        await gate.wait_for()
        late = [await tasks.post(check_app.count, path, queue_timeout=0.1) for _ in range(3)]
        patient = await tasks.post(check_app.count, path, queue_timeout=60)
        ended = await tasks.until_finished(3)
        assert sorted(ended) == late
        gate.let_through()
        ended = await tasks.until_finished(5)
        assert [ended[held].result, ended[patient].result] == pids * 2

    for task_id in late:
        error = ended[task_id].error
        assert isinstance(error, TaskTimeout)
        assert (error.seconds, error.begun) == (0.1, False)
        assert (ended[task_id].ran, ended[task_id].task_worker) == (0, None)
        assert ended[task_id].waited >= 0.1
    assert numbers_in(path) == [patient]


async def test_a_queue_timeout_is_over_when_the_run_begins(gate: Gate) -> None:
    """One that began in time runs on for as long as it likes."""
    async with open_tasks() as tasks:
        clock = Clock()
        await tasks.post(task_app.wait, gate.path, queue_timeout=1)
        await gate.wait_for()
        await until(lambda: clock.seconds > 1.2, "more than that has passed")
        assert tasks.finished == []
        gate.let_through()
        (ended,) = (await tasks.until_finished(1)).values()

    assert ended.result == gate.waiting[0]
    assert ended.ran > 0.2


async def test_the_setting_is_for_those_that_do_not_say(gate: Gate) -> None:
    """task_timeout ends tasks and calls; the timeout of a post replaces it."""
    async with open_tasks(task_timeout=TIMEOUT) as tasks:
        with pytest.raises(TaskTimeout, match=r"^the task did not end within 0\.3 s$"):
            await tasks.run(task_app.slept, 60)
        with pytest.raises(TaskTimeout, match=r"^the task did not end within 0\.3 s$"):
            await tasks.pool.run_sync(task_app.slept, 60)
        clock = Clock()
        await tasks.post(task_app.wait, gate.path, timeout=60)
        await gate.wait_for()
        await until(lambda: clock.seconds > 2 * TIMEOUT, "more than that has passed")
        gate.let_through()
        (ended,) = (await tasks.until_finished(1)).values()

    assert ended.error is None


@pytest.mark.parametrize("call", ["run_task", "run_tasks", "run_sync"])
async def test_a_cancel_scope_is_a_deadline(gate: Gate, call: str) -> None:
    """Whatever runs inside is killed, with its subprocess, and gone when the scope is left."""
    async with open_tasks() as tasks:

        async def wait_for_it() -> None:
            function, args = task_app.start_and_wait, (False, gate.path)
            if call == "run_task":
                await tasks.pool.run_task((function, *args))
            elif call == "run_tasks":
                await tasks.pool.run_tasks([(function, *args), (function, *args)])
            else:
                await tasks.pool.run_sync(function, *args)

        # The time of the scope begins when the task does, so that it is there to be killed.
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as calling:
                calling.start_soon(wait_for_it)
                child, pid = await gate.wait_for(2)
                scope.deadline = trio.current_time() + 0.1
        assert scope.cancelled_caught
        assert not is_running(pid)
        await tasks.until_gone(child)
        assert await tasks.run(task_app.pid) != pid
        statistics = tasks.pool.statistics()
        assert statistics.cancelled == (2 if call == "run_tasks" else 1)

    assert len(gate.waiting) == 2, "the second of several never began"


async def test_a_worker_that_is_stopped_while_idle_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What it was handed runs all the same, once, and the log says why it was killed."""
    async with open_tasks(2) as tasks:
        stopped, other = await tasks.until_whole()
        assert stopped is not None
        os.kill(stopped, signal.SIGSTOP)
        posted = [await tasks.post(task_app.pid) for _ in range(50)]
        ended = await tasks.until_finished(50)
        await tasks.until_gone(stopped)
        replaced, same = await tasks.until_whole()

    assert sorted(ended) == posted
    assert {completion.error for completion in ended.values()} == {None}
    assert {completion.attempt for completion in ended.values()} == {1}
    assert stopped not in {completion.result for completion in ended.values()}
    assert other == same
    assert replaced != stopped
    assert "task worker 0 does not answer; it is killed" in caplog.messages
