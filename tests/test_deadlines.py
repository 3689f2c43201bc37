"""Deadlines that kill, whatever the task is doing, and cost nobody else anything."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import check_app
import pytest
import task_app
import trio
from serving import is_running
from task_pools import Clock, Tasks, open_tasks
from workers import Gate, until

from trioserver import TaskTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

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
