"""Task workers are replaced by fresh ones while the pool works: new code, and no task lost."""

from __future__ import annotations

import logging
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import recycled_app
import task_app
import trio
from modules import directory_of_modules
from serving import is_running
from workers import Gate, open_workers, until

from trioserver import AppError, TaskTimeout, TaskWorkerCrashed, _deaths

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from workers import Workers

CODE = """\
import recycled_app, task_app

class App(recycled_app.App):
    def on_task_worker_start(self, worker_id):
        super().on_task_worker_start(worker_id)
        if (recycled_app.here() / "hold").exists():
            task_app.wait(str(recycled_app.here() / "gate"))

def version():
    return VERSION

def wait(gate):
    task_app.wait(gate)
    return VERSION

VERSION = """
"""What follows is the version."""


class Module:
    """The app's file; each version is longer than the one before, since caches go by size."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "reloaded.py"
        self._versions = 0
        self.write()

    def write(self, more: str = "") -> int:
        """Write the next version: its number."""
        self._versions += 1
        self._path.write_text(f"{CODE}{self._versions}  # {'x' * self._versions}\n{more}")
        return self._versions

    def __getattr__(self, name: str) -> Callable[..., Any]:
        import reloaded  # type: ignore[import-not-found]  # noqa: PLC0415  # written here

        function: Callable[..., Any] = getattr(reloaded, name)
        return function


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the app is, and its workers note their lives."""
    monkeypatch.setenv(recycled_app.HERE, str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    with directory_of_modules(tmp_path):
        yield tmp_path


@pytest.fixture
def module(here: Path) -> Module:
    return Module(here)


def noted(here: Path, name: str) -> list[int]:
    """The pids of those that have started, or stopped."""
    file = here / name
    return [int(line.split()[1]) for line in file.read_text().splitlines()] if file.exists() else []


def reloadable(number: int = 1, **settings: Any) -> Any:  # the context manager of `open_workers`
    return open_workers(number, "reloaded:App", **settings)


async def outcome(change: Callable[[], Awaitable[None]], outcomes: list[str]) -> None:
    """Note how a change of the workers has ended."""
    try:
        await change()
    except AppError as exc:
        outcomes.append(str(exc))
    else:
        outcomes.append("ready")


def states(workers: Workers) -> list[tuple[int, str]]:
    return [(worker.id, worker.state) for worker in workers.pool.statistics().workers]


async def test_fresh_workers_run_new_code(
    module: Module, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each in its own process; the old ones stop as at the end, and what was posted is whole."""
    caplog.set_level(logging.INFO, "trioserver.tasks")
    async with reloadable(3) as workers:
        before = workers.pids
        posted = [await workers.post(module.version) for _ in range(300)]
        new = module.write()
        await workers.engine.reload()
        after = workers.pids
        assert len(set(before) | set(after)) == 6
        for number in range(3):
            options = workers.options(task_worker=number)
            assert await workers.pool.run_task((module.version,), options) == new
        await workers.until_gone(*before)
        assert sorted(noted(here, "stopped")) == sorted(before)
        await workers.pool.wait_idle()
        idle = [(0, "idle"), (1, "idle"), (2, "idle")]
        await until(lambda: states(workers) == idle, "the old ones are forgotten")

    assert sorted(noted(here, "stopped")) == sorted(before + after)
    assert sorted(completion.task_id for completion in workers.finished) == posted
    assert {completion.result for completion in workers.finished} <= {new - 1, new}
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "task workers are being reloaded"
    left = sorted(
        f"old task worker {number} (pid {pid}) has left" for number, pid in enumerate(before)
    )
    assert sorted(text for text in said if "left" in text) == left
    assert len([text for text in said if text.startswith("task workers are reloaded: 3 ")]) == 1
    assert len(said) == 5


async def test_an_old_worker_ends_the_task_that_it_has_begun(module: Module, gate: Gate) -> None:
    """However many reloads come meanwhile; each old one is seen, counts its run, and leaves."""
    async with reloadable() as workers:
        pids = []
        for number in range(3):
            await workers.post(module.wait, gate.path)
            pids += (await gate.wait_for(number + 1))[number:]
            module.write()
            await workers.engine.reload()
            assert await workers.run(module.version) == number + 2
        assert len({*pids, *workers.pids}) == 4
        assert states(workers) == [(0, "idle")] + [(0, "leaving")] * 3
        told = workers.pool.statistics()
        assert [worker.pid for worker in told.workers[1:]] == pids
        assert [len(worker.running) for worker in told.workers] == [0, 1, 1, 1]
        assert (told.running, told.idle_workers, told.dead_workers) == (3, 1, 0)
        gate.let_through(3)
        await workers.until_gone(*pids)
        await until(lambda: states(workers) == [(0, "idle")], "all old ones are gone")
        assert sum(worker.tasks_done for worker in workers.pool.statistics().workers) == 6

    assert sorted(completion.result for completion in workers.finished) == [1, 2, 3]
    assert {completion.task_worker for completion in workers.finished} == {0}


async def test_what_an_old_worker_has_not_begun_runs_on_the_fresh_one(
    module: Module, gate: Gate
) -> None:
    """Also what is pinned to its number; it need not wait for the long task before it."""
    async with reloadable() as workers:
        await workers.post(module.wait, gate.path)
        await gate.wait_for()
        for _ in range(20):
            await workers.post(module.version)
            await workers.post_with({"task_worker": 0}, module.version)
        new = module.write()
        await workers.engine.reload()
        await until(lambda: len(workers.finished) == 40, "all others have ended")
        gate.let_through()

    assert {completion.result for completion in workers.finished[:40]} == {new}
    assert workers.finished[40].result == new - 1


async def test_the_deadline_of_an_old_task_holds(module: Module, gate: Gate) -> None:
    """Its worker is killed for it, and nobody takes its place; others do not notice."""
    async with reloadable() as workers:
        await workers.post_with({"timeout": 0.5}, module.wait, gate.path)
        (pid,) = await gate.wait_for()
        await workers.engine.reload()
        fresh = workers.pids
        await until(lambda: workers.finished, "its time is over")
        await workers.until_gone(pid)
        assert workers.pids == fresh
        await until(lambda: len(states(workers)) == 1, "it is forgotten")

    assert isinstance(workers.finished[0].error, TaskTimeout)


async def test_the_death_of_an_old_worker_costs_its_task_only(module: Module, gate: Gate) -> None:
    """kill -9; it is not replaced."""
    async with reloadable() as workers:
        await workers.post(module.wait, gate.path)
        (pid,) = await gate.wait_for()
        await workers.engine.reload()
        fresh = workers.pids
        os.kill(pid, signal.SIGKILL)
        await until(lambda: workers.finished, "it is noticed")
        assert await workers.run(task_app.pid) == fresh[0]
        assert len(states(workers)) == 1

    assert isinstance(workers.finished[0].error, TaskWorkerCrashed)


async def test_broken_code_keeps_the_old_workers(module: Module) -> None:
    """The reload raises with the traceback; once the code is whole again, so is a reload."""
    async with reloadable(2) as workers:
        before = workers.pids
        module.write("1 / 0")
        reason = r"^task worker 0 cannot start: ZeroDivisionError: division by zero$"
        with pytest.raises(AppError, match=reason) as caught:
            await workers.engine.reload()
        assert "1 / 0" in caught.value.remote_traceback
        assert workers.pids == before
        assert await workers.run(module.version) == 1
        new = module.write()
        await workers.engine.reload()
        assert not {*workers.pids} & {*before}
        assert await workers.run(module.version) == new


async def test_numbers_that_were_replaced_stay_so(module: Module) -> None:
    """A failure at a later one ends the reload there."""
    async with reloadable(3) as workers:
        before = workers.pids
        module.write(
            "def fail(self, worker_id):\n    assert worker_id == 0, 'no more'\n"
            "App.on_task_worker_start = fail"
        )
        reason = r"^task worker 1 cannot start: AssertionError: no more$"
        with pytest.raises(AppError, match=reason):
            await workers.engine.reload()
        assert workers.pids[0] != before[0]
        assert workers.pids[1:] == before[1:]


async def test_a_fresh_worker_that_is_killed_while_it_starts(
    module: Module, here: Path, gate: Gate
) -> None:
    """The old one keeps its number, and works meanwhile."""
    outcomes: list[str] = []
    async with reloadable() as workers, trio.open_nursery() as nursery:
        before = workers.pids
        (here / "hold").touch()
        nursery.start_soon(outcome, workers.engine.reload, outcomes)
        (pid,) = await gate.wait_for()
        assert await workers.run(task_app.pid) == before[0]
        os.kill(pid, signal.SIGKILL)
        await until(lambda: outcomes, "the reload has ended")
        died = f"task worker 0 (pid {pid}) died while it was starting (signal 9)"
        assert outcomes == [died]
        assert workers.pids == before
        assert states(workers) == [(0, "idle")]


async def test_an_old_worker_that_dies_while_the_fresh_one_starts(
    module: Module, here: Path, gate: Gate
) -> None:
    """Whoever comes first works, and in the end there is one."""
    async with reloadable() as workers, trio.open_nursery() as nursery:
        (before,) = workers.pids
        (here / "hold").touch()
        nursery.start_soon(workers.engine.reload)
        await gate.wait_for()
        os.kill(before, signal.SIGKILL)
        others = await gate.wait_for(2)
        task = await workers.post(module.version)
        gate.let_through(2)
        await until(lambda: workers.finished, "it has run")
        await until(lambda: states(workers) == [(0, "idle")], "one is left")
        (after,) = workers.pids
        await workers.until_gone(*({*others} - {after}))

    assert after in others
    assert [completion.task_id for completion in workers.finished] == [task]


async def test_a_cancelled_reload_leaves_whole_numbers(
    module: Module, here: Path, gate: Gate
) -> None:
    """The one that was starting is gone, and its number is with the old one."""
    async with reloadable(2) as workers, trio.open_nursery() as nursery:
        before = workers.pids
        (here / "hold").touch()
        nursery.start_soon(workers.engine.reload)
        (fresh,) = await gate.wait_for()
        gate.let_through()
        _, starting = await gate.wait_for(2)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await workers.until_gone(starting)
            assert workers.pids == [fresh, before[1]]


async def test_a_stop_ends_a_reload_quietly(module: Module, here: Path, gate: Gate) -> None:
    """And another one that waits for it; no process is left, be it old, fresh or starting."""
    outcomes: list[str] = []
    async with trio.open_nursery() as nursery:
        async with reloadable(2, max_wait_time=0.05) as workers:
            await workers.post_with({"task_worker": 0}, module.wait, gate.path)
            await gate.wait_for()
            old = workers.pids
            await workers.engine.reload()
            (here / "hold").touch()
            nursery.start_soon(outcome, workers.engine.reload, outcomes)  # noqa: ASYNC111
            nursery.start_soon(outcome, lambda: workers.engine.scale(3), outcomes)
            starting = (await gate.wait_for(2))[1]
            pids = [*old, *workers.pids, starting]
            assert outcomes == []
        assert not any(map(is_running, pids))

    assert outcomes == ["ready"] * 2
    assert workers.stopping.cut == 1


async def test_a_number_whose_worker_keeps_dying_is_tried_at_once(
    module: Module, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it would wait; a failure is the reload's, and success is its own."""
    monkeypatch.setattr(_deaths, "_FIRST", 1000.0)
    monkeypatch.setattr(_deaths, "_MOST", 1000.0)
    async with reloadable() as workers:
        (here / "die").write_text("not well")
        os.kill(workers.pids[0], signal.SIGKILL)
        await until(lambda: len(noted(here, "started")) == 2, "it is tried again")
        await until(lambda: workers.engine._current[0].worker is None, "it waits")
        reason = r"^task worker 0 cannot start: RuntimeError: not well$"
        with pytest.raises(AppError, match=reason):
            await workers.engine.reload()
        (here / "die").unlink()
        await workers.engine.reload()
        assert noted(here, "started")[3:] == workers.pids


async def test_a_replacement_that_has_begun_to_start_makes_room(
    module: Module, here: Path, gate: Gate
) -> None:
    """It may have read old code; one that starts after it takes the number."""
    async with reloadable() as workers, trio.open_nursery() as nursery:
        (here / "hold").touch()
        os.kill(workers.pids[0], signal.SIGKILL)
        (starting,) = await gate.wait_for()
        new = module.write()
        nursery.start_soon(workers.engine.reload)
        fresh = (await gate.wait_for(2))[1]
        await workers.until_gone(starting)
        gate.let_through()
        assert await workers.run(module.version) == new
        assert workers.pids == [fresh]


async def test_reloads_among_deaths_timeouts_and_failures_lose_nothing(module: Module) -> None:
    """Each task ends once, whatever becomes of its worker meanwhile; none runs twice."""
    async with reloadable(2, max_queued_tasks=5000) as workers:
        posted: list[int] = []
        async with trio.open_nursery() as nursery:

            async def change() -> None:
                for number in range(3):
                    module.write()
                    await workers.engine.reload()
                    await workers.engine.scale(3 - number % 2)

            nursery.start_soon(change)
            while nursery.child_tasks:
                for _ in range(50):
                    posted.append(await workers.post(recycled_app.run, len(posted)))
                posted.append(await workers.post(task_app.leave, 3))
                posted.append(await workers.post(task_app.fail, ValueError))
                posted.append(await workers.post_with({"timeout": 0.01}, task_app.slept, 60))
                await until(lambda: workers.pool.statistics().queued < 20, "they keep pace")
        await workers.pool.wait_idle()
        assert sorted(completion.task_id for completion in workers.finished) == posted
        told = workers.pool.statistics()
        rounds = len(posted) // 53
        assert (told.completed, told.crashed, told.failed, told.timed_out) == (
            50 * rounds,
            rounds,
            rounds,
            rounds,
        )
        assert {completion.attempt for completion in workers.finished} == {1}
        await until(lambda: len(states(workers)) == 3, "the old ones have left")
    runs = (recycled_app.here() / "runs").read_text().split()
    assert len(runs) == len({*runs}) == 50 * rounds
