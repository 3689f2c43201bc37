"""Task workers and what their tasks start: what signals do, what a kill ends, who outlives whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
import task_app
import trio
from serving import PATIENCE, ROOT, is_running, wait_until
from workers import Gate, open_workers

from trioserver._tasks import _door

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def test_a_worker_leads_a_session_of_its_own() -> None:
    """So a signal to the server's group does not reach it."""
    async with open_workers() as workers:
        pid, session, group = await workers.run(task_app.session)

    assert pid == session == group


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_polite_signals_do_not_end_a_worker(gate: Gate, signum: int) -> None:
    """Neither an idle one nor one in the middle of a task: the server decides when it leaves."""
    async with open_workers() as workers:
        (pid,) = workers.pids
        os.kill(pid, signum)
        await workers.post(task_app.wait, gate.path)
        await gate.wait_for()
        os.kill(pid, signum)
        gate.let_through()
        await workers.pool.wait_idle()
        assert await workers.run(task_app.pid) == pid

    assert [completion.result for completion in workers.finished] == [pid]


async def test_what_a_task_starts_can_be_terminated() -> None:
    """It does not inherit the worker's deafness."""
    async with open_workers() as workers:
        assert await workers.run(task_app.terminate_a_subprocess) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (task_app.start_and_wait, (True,)),
        (task_app.start_and_wait, (False,)),
        (task_app.fork_and_wait, ()),
    ],
    ids=["subprocess", "subprocess with all descriptors", "fork"],
)
async def test_cancelling_ends_a_task_and_what_it_has_started(
    gate: Gate, function: Callable[..., None], args: tuple[object, ...]
) -> None:
    """When the call has returned all is over; a child that holds descriptors delays nothing."""
    async with open_workers() as workers:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as calling:
                calling.start_soon(workers.run, function, *args, gate.path)
                pids = await gate.wait_for(2)
                scope.cancel()
        assert scope.cancelled_caught
        assert workers.pool._jobs == {}
        await workers.until_gone(*pids)
        await workers.until_whole(*pids)
        assert await workers.run(task_app.echo, 1) == 1

    assert workers.finished == []


async def test_a_death_is_noticed_though_a_child_lives_on(gate: Gate) -> None:
    """One that has left the session is not killed, and holds nothing by which deaths are seen."""
    async with open_workers() as workers:
        outcome = await workers.outcome(task_app.fork_and_leave, gate.path, 3)
        (child,) = gate.waiting
        assert is_running(child)
        assert str(outcome.error) == "the task worker died while it ran the task (exit code 3)"
        assert await workers.run(task_app.echo, 1) == 1
        gate.let_through()
        await workers.until_gone(child)


async def test_a_forked_child_that_comes_back_does_no_harm() -> None:
    """It leaves quietly, and the worker goes on as the only one."""
    async with open_workers() as workers:
        (pid,) = workers.pids
        assert await workers.run(task_app.fork_and_return) == (pid, 0)
        assert await workers.run(task_app.fork_and_raise) == pid
        outcomes = await workers.pool.run_tasks([(task_app.pid,)] * 100)

    assert {outcome.result for outcome in outcomes} == {pid}


async def test_what_a_task_prints_is_not_lost_with_its_worker(
    gate: Gate, capfd: pytest.CaptureFixture[str]
) -> None:
    """Lines go out at once, also where stdout is a file."""
    async with open_workers() as workers:
        await workers.post(task_app.say_and_wait, "still here", gate.path)
        (pid,) = await gate.wait_for()
        os.kill(pid, signal.SIGKILL)

    assert capfd.readouterr().out == "still here\n"


async def test_replacements_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty of them: no file, no descriptor, no process."""
    directory = tmp_path / "shm"
    directory.mkdir()
    monkeypatch.setattr(_door, "_SHARED_MEMORY", str(directory))
    async with open_workers(2) as workers:
        before = len(os.listdir("/proc/self/fd"))
        dead: list[int] = []
        for _ in range(10):
            dead += workers.pids
            for pid in dead[-2:]:
                os.kill(pid, signal.SIGKILL)
            await workers.until_whole(*dead)
        after = len(os.listdir("/proc/self/fd"))
        pids = workers.pids
        assert os.listdir(directory) == []

    # trio-parallel forgets a process when it pleases: some descriptors of the last ones stay.
    assert after <= before + 4
    await workers.until_gone(*dead, *pids)


# Servers that are killed: real processes, since that cannot be tried from inside.

SERVER = """
import sys, trio, task_app
from workers import open_workers

async def main():
    async with open_workers(2, APP) as workers:
        print(*workers.pids, flush=True)
        for function in FUNCTIONS:
            await workers.post(getattr(task_app, function), GATE)
        await trio.sleep_forever()

if __name__ == "__main__":
    trio.run(main)
"""


def start_server(directory: Path, gate: Gate, *functions: str, app: str) -> subprocess.Popen[str]:
    script = directory / "server.py"
    values = {"APP": app, "FUNCTIONS": functions, "GATE": gate.path}
    text = "".join(f"{name} = {value!r}\n" for name, value in values.items()) + SERVER
    script.write_text(text)
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests:{directory}"},
    )


@pytest.mark.parametrize("function", ["wait", "hold_the_gil", "fork_and_wait"])
def test_workers_die_with_their_server(tmp_path: Path, gate: Gate, function: str) -> None:
    """C16: One is busy, also inside a C call that nothing interrupts, and one is idle."""
    with start_server(tmp_path, gate, function, app="task_app:App") as server:
        assert server.stdout is not None
        pids = [int(pid) for pid in server.stdout.readline().split()]
        assert len(pids) == 2
        wait_until(lambda: set(gate.waiting) & set(pids), "a task runs")
        server.kill()
        server.wait(PATIENCE)

    wait_until(lambda: not any(map(is_running, {*pids, *gate.waiting})), "all are gone")


def test_workers_that_are_starting_die_with_their_server(tmp_path: Path, gate: Gate) -> None:
    """They wait in on_task_worker_start when it is killed."""
    (tmp_path / "slow_app.py").write_text(
        textwrap.dedent(
            f"""
            import task_app

            class App(task_app.App):
                def on_task_worker_start(self, worker_id):
                    task_app.wait({gate.path!r})
            """
        )
    )
    with start_server(tmp_path, gate, app="slow_app:App") as server:
        wait_until(lambda: len(gate.waiting) == 2, "both are starting")
        server.kill()
        server.wait(PATIENCE)

    wait_until(lambda: not any(map(is_running, gate.waiting)), "all are gone")
