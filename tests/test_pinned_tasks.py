"""``task_worker=i``: tasks that only one worker may run."""

from __future__ import annotations

import os
import signal

import pytest
import task_app
import trio
from workers import Gate, Workers, open_workers, until

from trioserver import TaskWorkerCrashed

pytestmark = pytest.mark.usefixtures("form")


def worker_ids(workers: Workers) -> list[object]:
    return [completion.task_worker for completion in workers.finished]


async def test_a_pinned_task_runs_where_it_is_pinned() -> None:
    """Each worker's ones in their order, whatever else there is to do."""
    async with open_workers(3) as workers:
        for number in range(60):
            pinned = {"task_worker": number % 3} if number % 2 else {}
            await workers.post_with(pinned, task_app.describe)

    for completion in workers.finished:
        task_id, worker_id, opened_as, attempt, _ = completion.result
        assert (task_id, attempt) == (completion.task_id, 1)
        assert worker_id == opened_as == completion.task_worker
        if task_id % 2:
            assert worker_id == task_id % 3
    for number in range(3):
        ids = [
            completion.task_id
            for completion in workers.finished
            if completion.task_worker == number and completion.task_id % 2
        ]
        assert ids == sorted(ids)
        assert len(ids) == 10


async def test_a_pinned_task_waits_for_its_worker(gate: Gate) -> None:
    """Also while another one is idle, which takes all that is not pinned."""
    async with open_workers(2) as workers:
        await workers.post_with({"task_worker": 0}, task_app.wait, gate.path)
        await gate.wait_for()
        pinned = [
            await workers.post_with({"task_worker": 0}, task_app.echo, number)
            for number in range(5)
        ]
        others = [await workers.post(task_app.echo, number) for number in range(5)]
        await until(lambda: len(workers.finished) == 5, "what is not pinned has ended")
        assert [completion.task_id for completion in workers.finished] == others
        assert worker_ids(workers) == [1] * 5
        assert workers.pool.statistics().queued == 5
        gate.let_through()

    assert [completion.task_id for completion in workers.finished[6:]] == pinned
    assert worker_ids(workers)[5:] == [0] * 6


async def test_pinned_and_other_tasks_of_one_worker_keep_their_order(gate: Gate) -> None:
    """First come, first served: pinning is no priority."""
    async with open_workers(1) as workers:
        await workers.post(task_app.wait, gate.path)
        await gate.wait_for()
        for number in range(40):
            pinned = {"task_worker": 0} if number % 3 == 0 else {}
            await workers.post_with(pinned, task_app.echo, number)
        gate.let_through()

    assert [completion.result for completion in workers.finished[1:]] == list(range(40))


async def test_pinned_tasks_wait_for_the_successor_of_a_dead_worker(gate: Gate) -> None:
    """The one that ran has crashed; those behind it run on the same number, and another pid."""
    async with open_workers(2) as workers:
        runs = await workers.post_with({"task_worker": 1}, task_app.wait, gate.path)
        (pid,) = await gate.wait_for()
        pinned = [await workers.post_with({"task_worker": 1}, task_app.pid) for _ in range(10)]
        os.kill(pid, signal.SIGKILL)

    crashed = next(found for found in workers.finished if found.task_id == runs)
    assert isinstance(crashed.error, TaskWorkerCrashed)
    after = [found for found in workers.finished if found.task_id != runs]
    assert [found.task_id for found in after] == pinned
    assert {(found.task_worker, found.attempt) for found in after} == {(1, 1)}
    (successor,) = {found.result for found in after}
    assert successor != pid


async def test_a_retry_of_a_pinned_task_runs_there_again(gate: Gate) -> None:
    """On the successor, if the worker died of it."""
    async with open_workers(2) as workers:
        await workers.post_with({"task_worker": 1, "retries": 1}, task_app.wait, gate.path)
        (pid,) = await gate.wait_for()
        os.kill(pid, signal.SIGKILL)
        first, second = await gate.wait_for(2)
        gate.let_through()

    (completion,) = workers.finished
    assert (first, completion.result) == (pid, second)
    assert (completion.task_worker, completion.attempt) == (1, 2)


async def test_pinned_tasks_go_through_recycling() -> None:
    """They wait for the successor, and none is lost."""
    async with open_workers(2, task_max_request=4) as workers:
        for _ in range(12):
            await workers.post_with({"task_worker": 1}, task_app.pid)

    assert worker_ids(workers) == [1] * 12
    assert len({completion.result for completion in workers.finished}) >= 3


async def test_a_pinned_task_can_run_out_of_time_in_the_queue(gate: Gate) -> None:
    """Its queue_timeout counts as for any other, though another worker is idle."""
    async with open_workers(2) as workers:
        await workers.post_with({"task_worker": 0}, task_app.wait, gate.path)
        await gate.wait_for()
        late = await workers.post_with({"task_worker": 0, "queue_timeout": 0.05}, task_app.echo, 1)
        await until(lambda: workers.finished, "it has ended")
        gate.let_through()

    assert workers.finished[0].task_id == late
    assert str(workers.finished[0].error) == "the task did not begin within 0.05 s"


@pytest.mark.parametrize(
    ("task_worker", "error", "reason"),
    [
        (2, ValueError, r"^task_worker must be from 0 to 1: 2$"),
        (-1, ValueError, r"^task_worker must be from 0 to 1: -1$"),
        ("1", TypeError, r"^task_worker must be a whole number: '1'$"),
        (True, TypeError, r"^task_worker must be a whole number: True$"),
    ],
)
async def test_there_must_be_such_a_worker(
    task_worker: object, error: type[Exception], reason: str
) -> None:
    """A post to no worker raises at its caller."""
    async with open_workers(2) as workers:
        with pytest.raises(error, match=reason):
            await workers.post_with({"task_worker": task_worker}, task_app.echo, 1)
        await trio.lowlevel.checkpoint()

    assert workers.finished == []
