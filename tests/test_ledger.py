"""The ledger of tasks: what was posted is queued, runs or has ended, and is counted once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import task_app
import trio
from workers import Workers, open_workers, until

if TYPE_CHECKING:
    from trioserver import TaskStatistics


pytestmark = pytest.mark.usefixtures("form")


def now(workers: Workers) -> TaskStatistics:
    statistics = workers.pool.statistics()
    assert statistics.is_balanced
    return statistics


async def test_the_ledger_is_balanced_at_any_time() -> None:
    """While tasks of all kinds come and end, and are looked at all the time."""
    kinds: list[tuple[dict[str, object], tuple[object, ...]]] = [
        ({}, (task_app.echo, 1)),
        ({}, (task_app.fail, ValueError, "no good")),
        ({"retries": 1}, (task_app.fail, ValueError, "no good")),
        ({"timeout": 0.01}, (task_app.slept, 600)),
        ({"queue_timeout": 0.01}, (task_app.echo, 2)),
        ({"retries": 1}, (task_app.leave, 3)),
        ({"task_worker": 1}, (task_app.echo, 3)),
        ({}, (task_app.result, "raises")),
    ]
    looks = 0
    async with open_workers(3) as workers, trio.open_nursery() as looking:

        async def look() -> None:
            nonlocal looks
            before = now(workers)
            while True:
                statistics = now(workers)
                looks += 1
                assert statistics.posted >= before.posted
                assert _ended(statistics) >= _ended(before)
                assert _ended(statistics) >= len(workers.finished)
                before = statistics
                await trio.sleep(0.001)

        looking.start_soon(look)
        for number in range(80):
            options, (function, *arguments) = kinds[number % len(kinds)]
            task_id = await workers.post_with(options, function, *arguments)  # type: ignore[arg-type]  # one of ours
            if number % 10 == 9:
                workers.pool.cancel(task_id)
        await until(lambda: len(workers.finished) == 80, "all have ended")
        looking.cancel_scope.cancel()
        statistics = now(workers)

    assert looks > 1
    assert statistics.posted == _ended(statistics) == 80
    assert statistics.crashed > 0
    assert statistics.timed_out > 0
    assert statistics.failed > 0
    assert statistics.completed > 0


def _ended(statistics: TaskStatistics) -> int:
    return (
        statistics.completed
        + statistics.failed
        + statistics.timed_out
        + statistics.cancelled
        + statistics.crashed
    )


async def test_a_ledger_that_does_not_balance_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """At the next look, and at the end of the pool in any case."""
    async with open_workers() as workers:
        await workers.run(task_app.echo, 1)
        workers.dispatcher._counters.posted += 1
        statistics = workers.pool.statistics()
        assert not statistics.is_balanced
        (record,) = caplog.records
        caplog.clear()
        assert (record.name, record.levelname) == ("trioserver.tasks", "ERROR")
        assert record.getMessage().startswith(
            "the ledger of tasks does not balance: TaskStatistics(posted=2, "
        )

    assert [record.levelname for record in caplog.records] == ["ERROR"]
