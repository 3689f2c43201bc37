"""Task workers that die at every start: they are tried again, ever more seldom, and said once."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
from typing import TYPE_CHECKING

import pytest
import recycled_app
import task_app
from workers import open_workers, until

from trioserver import TaskWorkerCrashed
from trioserver._tasks import _slot

if TYPE_CHECKING:
    from pathlib import Path

    from workers import Workers

APP = "recycled_app:App"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the workers find how to start."""
    monkeypatch.setenv(recycled_app.HERE, str(tmp_path))
    return tmp_path


class Log:
    """What is said of starts."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "trioserver.tasks")
        self._caplog = caplog

    @property
    def starts(self) -> list[tuple[int, str]]:
        """Level and text of what is tried again, with N for the pid, which is another each time."""
        said = [(record.levelno, record.getMessage()) for record in self._caplog.records]
        return [
            (level, re.sub(r"\(pid \d+\)", "(pid N)", text))
            for level, text in said
            if "it is started again in" in text
        ]

    @property
    def waits(self) -> list[float]:
        """Seconds from each to the next try."""
        return [float(text.partition("again in ")[2].split()[0]) for _, text in self.starts]

    @property
    def errors(self) -> list[str]:
        return [text.partition("; ")[0] for level, text in self.starts if level == logging.ERROR]

    async def until_tried(self, times: int) -> None:
        await until(lambda: len(self.starts) >= times, f"{times} tries")


async def kill_the_only(workers: Workers) -> None:
    (pid,) = workers.pids
    os.kill(pid, signal.SIGKILL)


async def test_a_worker_that_dies_at_every_start(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After 0.1 s, doubling; the reason is an error once, and what is queued waits for the end."""
    log = Log(caplog)
    async with open_workers(1, APP) as workers:
        (here / "die").write_text("7")
        await kill_the_only(workers)
        await log.until_tried(3)
        await workers.post(task_app.echo, "waits")
        assert workers.pool.statistics().dead_workers == 1
        (here / "die").unlink()
        await until(lambda: workers.finished, "the queued task has ended")

    assert workers.finished[0].result == "waits"
    # It is tried without more ado after the kill, which says nothing about the app.
    assert log.waits[:3] == [0.1, 0.2, 0.4]
    assert log.errors == ["task worker 0 (pid N) died while it was starting (exit code 7)"]
    assert {level for level, _ in log.starts[1:]} == {logging.DEBUG}


async def test_each_cause_is_said_once(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One more cause is one more error, with the traceback that the worker had."""
    log = Log(caplog)
    async with open_workers(1, APP) as workers:
        (here / "die").write_text("7")
        await kill_the_only(workers)
        await log.until_tried(2)
        (here / "die").write_text("no database")
        await until(lambda: len(log.errors) == 2, "the second cause is said")
        await log.until_tried(len(log.starts) + 1)
        (here / "die").unlink()
        assert await workers.run(task_app.echo, 1) == 1

    assert log.errors == [
        "task worker 0 (pid N) died while it was starting (exit code 7)",
        "task worker 0 cannot start: RuntimeError: no database",
    ]
    (traceback,) = {
        record.remote_traceback
        for record in caplog.records
        if "no database" in record.getMessage() and hasattr(record, "remote_traceback")
    }
    assert "in on_task_worker_start" in traceback


async def test_a_cause_that_comes_again_later_is_said_again(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that has lived in between has begun a new story, with the shortest wait."""
    log = Log(caplog)
    async with open_workers(1, APP) as workers:
        for _ in range(2):
            tried = len(log.starts)
            (here / "die").write_text("7")
            await kill_the_only(workers)
            await log.until_tried(tried + 2)
            (here / "die").unlink()
            await workers.until_whole()

    assert log.errors == ["task worker 0 (pid N) died while it was starting (exit code 7)"] * 2
    assert log.waits.count(0.1) == 2


async def test_others_work_while_one_cannot_start(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its part of the work is theirs."""
    log = Log(caplog)
    async with open_workers(2, APP) as workers:
        killed, other = workers.pids
        (here / "die").write_text("7")
        os.kill(killed, signal.SIGKILL)
        await log.until_tried(2)
        outcomes = await workers.pool.run_tasks([(task_app.pid,)] * 10)
        assert [outcome.result for outcome in outcomes] == [other] * 10


async def test_a_worker_that_its_task_crashes_is_replaced_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However soon after its start, that is the task's doing."""
    log = Log(caplog)
    async with open_workers(1, APP) as workers:
        for _ in range(3):
            (outcome,) = await workers.pool.run_tasks([(task_app.leave, 3)])
            assert isinstance(outcome.error, TaskWorkerCrashed)
        assert await workers.run(task_app.echo, 1) == 1

    assert log.starts == []


@pytest.mark.parametrize(("quick", "waits"), [(math.inf, [0.1, 0.2, 0.4]), (0, [])])
async def test_a_worker_that_dies_by_itself_soon_after_its_start(
    quick: float,
    waits: list[float],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That counts as a start that failed; later it does not."""
    monkeypatch.setattr(_slot, "_QUICK_DEATH", quick)
    log = Log(caplog)
    async with open_workers(1, APP) as workers:
        dead: list[int] = []
        for _ in range(3):
            dead += workers.pids
            os.kill(dead[-1], signal.SIGABRT)
            await workers.until_whole(*dead)

    assert log.waits == waits
