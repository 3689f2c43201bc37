"""Task workers that are killed: what it costs, and that the pool is whole again."""

from __future__ import annotations

import errno
import logging
import os
import signal

import pytest
import task_app
import trio
from workers import Gate, open_workers, until

from trioserver._errors import AppError, TaskCancelled, TaskWorkerCrashed
from trioserver._tasks import _worker_page
from trioserver._tasks._recorder import create_page

ROUNDS = 20


pytestmark = pytest.mark.usefixtures("form")


async def test_the_death_of_an_idle_worker_costs_no_task() -> None:
    """Twenty times; each is replaced, and what was handed to the dead one runs elsewhere."""
    async with open_workers(2) as workers:
        dead: list[int] = []
        for number in range(ROUNDS):
            dead.append(workers.pids[number % 2])
            os.kill(dead[-1], signal.SIGKILL)
            outcomes = await workers.pool.run_tasks([(task_app.pid,)] * 4)
            assert [outcome.error for outcome in outcomes] == [None] * 4
            assert all(outcome.attempt == 1 for outcome in outcomes)
            await workers.until_whole(*dead)


async def test_what_a_stopped_worker_has_not_begun_runs_elsewhere() -> None:
    """Long before it is given up: others are free. It goes on when it can."""
    async with open_workers(2) as workers:
        pids = workers.pids
        for _ in range(3):
            # The one that ran last is the first to be asked.
            stopped = (await workers.outcome(task_app.pid)).result
            os.kill(stopped, signal.SIGSTOP)
            try:
                for _ in range(3):
                    outcome = await workers.outcome(task_app.pid)
                    assert (outcome.error, outcome.attempt) == (None, 1)
                    assert outcome.result != stopped
            finally:
                os.kill(stopped, signal.SIGCONT)
            await until(
                lambda: workers.dispatcher.statistics().idle_workers == 2, "both have nothing to do"
            )
        assert workers.pids == pids


async def test_the_death_of_a_busy_worker_costs_the_task_that_ran(gate: Gate) -> None:
    """Twenty times; exactly that one has crashed, and those behind it run elsewhere."""
    async with open_workers(2) as workers:
        dead: list[int] = []
        for number in range(ROUNDS):
            posted = [await workers.post(task_app.wait, gate.path)]
            posted += [await workers.post(task_app.pid) for _ in range(6)]
            dead.append((await gate.wait_for(number + 1))[number])
            os.kill(dead[-1], signal.SIGKILL)
            await until(lambda: len(workers.finished) == 7, "all have ended")
            ended = {completion.task_id: completion for completion in workers.finished}
            workers.finished.clear()

            crashed = ended.pop(posted[0])
            assert isinstance(crashed.error, TaskWorkerCrashed)
            assert crashed.error.signal == signal.SIGKILL
            assert sorted(ended) == posted[1:]
            assert {completion.error for completion in ended.values()} == {None}
            await workers.until_whole(*dead)


async def test_results_that_were_finished_and_not_sent_survive(gate: Gate) -> None:
    """They are read from the flight recorder; the one behind them has crashed."""
    async with open_workers() as workers:
        for number in range(300):
            await workers.post(task_app.echo, number)
        await workers.post(task_app.wait, gate.path)
        await workers.post(task_app.echo, "last")
        (pid,) = await gate.wait_for()
        os.kill(pid, signal.SIGKILL)
        await workers.pool.wait_idle()

    assert [completion.error for completion in workers.finished[:300]] == [None] * 300
    assert [completion.result for completion in workers.finished[:300]] == list(range(300))
    assert isinstance(workers.finished[300].error, TaskWorkerCrashed)
    assert workers.finished[301].result == "last"


async def test_a_death_while_stopping_is_replaced_for_what_is_queued(gate: Gate) -> None:
    """The queue goes on as long as the stop has time."""
    async with open_workers() as workers:
        await workers.post(task_app.wait, gate.path)
        for number in range(5):
            await workers.post(task_app.echo, number)
        (pid,) = await gate.wait_for()
        workers.stopping.request()
        os.kill(pid, signal.SIGKILL)

    assert [completion.result for completion in workers.finished[1:]] == list(range(5))
    assert workers.stopping.cut == 0


async def test_a_cancel_while_stopping_does_not_cost_what_is_queued(gate: Gate) -> None:
    """The worker that is killed for it is replaced, too."""
    async with open_workers() as workers:
        waits = await workers.post(task_app.wait, gate.path)
        await workers.post(task_app.echo, 1)
        await gate.wait_for()
        workers.stopping.request()
        workers.pool.cancel(waits)

    assert isinstance(workers.finished[0].error, TaskCancelled)
    assert workers.finished[1].result == 1
    assert workers.stopping.cut == 0


async def test_a_stop_that_runs_out_of_time_cuts_and_leaves_nothing(gate: Gate) -> None:
    """Everybody hears of it, and the processes are gone."""
    async with open_workers(2, max_wait_time=0.05) as workers:
        pids = workers.pids
        for _ in range(5):
            await workers.post(task_app.wait, gate.path)
        await gate.wait_for(2)

    assert [type(completion.error) for completion in workers.finished] == [TaskCancelled] * 5
    assert (
        sorted(
            completion.error.begun  # type: ignore[union-attr]  # see above
            for completion in workers.finished
        )
        == [False] * 3 + [True] * 2
    )
    assert workers.stopping.cut == 5
    await workers.until_gone(*pids)


async def test_cancelling_everything_leaves_nothing(gate: Gate) -> None:
    """Without a stop: busy and idle workers are killed."""
    with trio.CancelScope() as scope:
        async with open_workers(2) as workers:
            pids = workers.pids
            await workers.post(task_app.wait, gate.path)
            await gate.wait_for()
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    await workers.until_gone(*pids)
    assert workers.finished == []


async def test_a_worker_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Descriptors may run out at any time; that costs a start, and not the server."""
    failures = [errno.EMFILE, errno.ENFILE]

    def create_page_in_vain() -> int:
        if failures:
            number = failures.pop(0)
            raise OSError(number, os.strerror(number))
        return create_page()

    async with open_workers() as workers:
        monkeypatch.setattr(_worker_page, "create_page", create_page_in_vain)
        (pid,) = workers.pids
        os.kill(pid, signal.SIGKILL)
        assert await workers.run(task_app.pid) != pid

    assert failures == []
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    goes_on = "and after longer times if that goes on"
    assert [error.partition("OSError: ")[2] for error in errors] == [
        f"[Errno 24] Too many open files; it is started again in 0.1 s, {goes_on}",
        f"[Errno 23] Too many open files in system; it is started again in 0.2 s, {goes_on}",
    ]


async def test_a_first_start_that_fails_is_an_error_of_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever starts the pool hears of it, in one line."""

    def create_page_in_vain() -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(_worker_page, "create_page", create_page_in_vain)
    reason = r"^task worker 0 cannot start: OSError: \[Errno 24\] Too many open files$"
    with pytest.RaisesGroup(pytest.RaisesExc(AppError, match=reason), flatten_subgroups=True):
        async with open_workers():
            pytest.fail("it cannot have started")
