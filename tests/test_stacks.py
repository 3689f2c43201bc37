"""The live stack of a running task, whatever the task does, and of any other process of ours."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import stack_app
import task_app
import trio
from serving import PATIENCE, ROOT, is_running, wait_until
from workers import Gate, Workers, open_workers, until

from trioserver import _stacks
from trioserver._stack_signal import STACK_SIGNAL
from trioserver._stacks import StackFile, without_machinery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.+)$')
NO_ANSWER = r"^task worker 0 \(pid \d+\) does not answer: "


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast the machine is does not matter."""
    monkeypatch.setattr(_stacks, "ANSWER_TIME", PATIENCE)


def functions(stack: str) -> list[str]:
    """The names of the functions, the most recent call first."""
    found = [FRAME.match(line) for line in stack.splitlines()]
    assert all(found), stack
    return [match[3] for match in found if match]


async def run(workers: Workers, function: Callable[..., object], *args: object) -> int:
    """Post a task, and wait until it runs."""
    task_id = await workers.post(function, *args)

    def runs() -> bool:
        found = workers.dispatcher.statistics().workers
        return any(task.task_id == task_id for worker in found for task in worker.running)

    await until(runs, f"task {task_id} runs")
    return task_id


async def stack_with(workers: Workers, task_id: int, function: str) -> str:
    """The stack as soon as ``function`` is its most recent call."""
    while True:
        stack = await workers.engine.stack(task_id)
        if FRAME.match(stack.splitlines()[0]) and functions(stack)[0] == function:
            return stack


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that has been stopped."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: _stacks._state_of(pid) == "T", f"{pid} is stopped")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("function", "recent"), [(stack_app.sleep, "sleep"), (stack_app.spin, "spin")]
)
async def test_the_stack_of_a_task(function: Callable[..., object], recent: str) -> None:
    """From its most recent call to the app's `on_task`: nothing of ours below that."""
    async with open_workers(2) as workers:
        task_id = await run(workers, function)
        stack = await stack_with(workers, task_id, recent)
        workers.pool.cancel(task_id)

    assert functions(stack) == [recent, "on_task"]
    assert [Path(FRAME.match(line)[1]).name for line in stack.splitlines()] == [  # type: ignore[index]  # `functions` has seen to it
        "stack_app.py",
        "task_app.py",
    ]


async def test_a_task_that_holds_the_gil_answers() -> None:
    """A signal handler in C needs no GIL."""
    async with open_workers() as workers:
        task_id = await run(workers, stack_app.match)
        stack = await stack_with(workers, task_id, "match")
        while functions(stack)[:2] != ["match", "match"]:
            stack = await stack_with(workers, task_id, "match")
        workers.pool.cancel(task_id)

    assert functions(stack) == ["match", "match", "on_task"]


async def test_of_a_deep_stack_its_most_recent_calls_are_shown() -> None:
    """A hundred; most versions of Python say that there are more."""
    async with open_workers() as workers:
        task_id = await run(workers, stack_app.recurse, 300)
        stack = await stack_with_dots(workers, task_id)
        workers.pool.cancel(task_id)

    assert functions(stack.removesuffix("\n  ...")) == ["sleep"] + ["recurse"] * 99


async def stack_with_dots(workers: Workers, task_id: int) -> str:
    while True:
        stack = await workers.engine.stack(task_id)
        if " in sleep\n" in stack:
            return stack


async def test_it_does_the_task_no_harm(gate: Gate) -> None:
    """It is interrupted in a system call, again and again, by several at once, and goes on."""
    async with open_workers() as workers:
        task_id = await run(workers, task_app.wait, gate.path)
        (pid,) = await gate.wait_for()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(workers.engine.stack, task_id)
        gate.let_through()
        await workers.pool.wait_idle()

    assert [completion.result for completion in workers.finished] == [pid]


async def test_only_a_task_that_runs_has_a_stack() -> None:
    """Not one that is queued, has ended, or never was."""
    async with open_workers() as workers:
        ended = await workers.post(task_app.echo, 1)
        await workers.pool.wait_idle()
        running = await run(workers, stack_app.sleep)
        queued = await workers.post(task_app.echo, 1)
        for task_id in (ended, queued, 4711):
            with pytest.raises(KeyError, match=rf"^'no task {task_id} is running'$"):
                await workers.engine.stack(task_id)
        workers.pool.cancel(running)


async def test_without_workers_no_task_has_a_stack() -> None:
    """Before they run, nothing does."""
    async with open_workers() as workers:
        engine = type(workers.engine)(workers.app, workers.settings, workers.stopping)
        with pytest.raises(KeyError, match=r"^'no task 1 is running'$"):
            await engine.stack(1)


async def test_a_task_that_ends_meanwhile_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was seen could be the stack of the next one."""
    async with open_workers() as workers:
        task_id = await run(workers, stack_app.sleep)

        async def read(_self: StackFile, _pid: int) -> list[str]:
            workers.pool.cancel(task_id)
            await workers.pool.wait_idle()
            return ["  File"]

        with monkeypatch.context() as patched:
            patched.setattr(StackFile, "read", read)
            with pytest.raises(KeyError, match=rf"^'no task {task_id} is running'$"):
                await workers.engine.stack(task_id)


async def test_a_stopped_process_is_named_as_that() -> None:
    """It cannot answer; when it goes on it does."""
    async with open_workers() as workers:
        task_id = await run(workers, stack_app.sleep)
        (pid,) = workers.pids
        with stopped(pid), pytest.raises(RuntimeError, match=NO_ANSWER + "it is stopped$"):
            await workers.engine.stack(task_id)
        assert await stack_with(workers, task_id, "sleep")
        workers.pool.cancel(task_id)


async def test_a_process_that_stops_after_a_look_costs_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody waits longer; the dumps that it owes do not become the next answer."""
    async with open_workers() as workers:
        task_id = await run(workers, stack_app.sleep)
        (pid,) = workers.pids
        with stopped(pid), monkeypatch.context() as patched:
            patched.setattr(_stacks, "ANSWER_TIME", 0.1)
            patched.setattr(_stacks, "_STOPPED", frozenset())
            with pytest.raises(RuntimeError, match=NO_ANSWER + "it is stopped$"):
                await workers.engine.stack(task_id)
        stack = await stack_with(workers, task_id, "sleep")
        workers.pool.cancel(task_id)

    assert functions(stack) == ["sleep", "on_task"]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (stack_app.close_and_wait, "it has closed the descriptor for that"),
        (stack_app.let_go_and_wait, f"its handler of signal {STACK_SIGNAL} is gone"),
    ],
)
async def test_a_task_that_takes_it_off_is_not_signalled(
    gate: Gate, function: Callable[..., object], reason: str
) -> None:
    """Else the signal would kill it, or its stack go into a file of its own; the task goes on."""
    async with open_workers() as workers:
        task_id = await run(workers, function, gate.path)
        (pid,) = await gate.wait_for()
        with pytest.raises(RuntimeError, match=NO_ANSWER + f"{reason}$"):
            await workers.engine.stack(task_id)
        assert workers.pids == [pid]
        workers.pool.cancel(task_id)


async def test_a_task_that_holds_the_signal_back_gets_none(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stack of another thread would be taken for its own."""
    async with open_workers() as workers:
        task_id = await run(workers, stack_app.hold_back_and_wait, gate.path)
        await gate.wait_for()
        monkeypatch.setattr(_stacks, "ANSWER_TIME", 0.1)
        reason = f"it holds back signal {STACK_SIGNAL}$"
        with pytest.raises(RuntimeError, match=NO_ANSWER + reason):
            await workers.engine.stack(task_id)
        workers.pool.cancel(task_id)


async def test_what_was_in_the_file_is_no_stack(gate: Gate) -> None:
    """A task may scribble there, and move its place."""
    async with open_workers() as workers:
        task_id = await run(workers, stack_app.scribble_and_wait, gate.path)
        await gate.wait_for()
        stack = await stack_with(workers, task_id, "wait")
        workers.pool.cancel(task_id)

    assert functions(stack) == ["wait", "scribble_and_wait", "on_task"]


async def test_what_a_task_forges_is_harmless_text() -> None:
    """Nothing that a terminal would act upon."""
    async with open_workers() as workers:
        task_id = await run(workers, stack_app.scribble_for_ever)
        seen = set()
        for _ in range(20):
            seen.add(await workers.engine.stack(task_id))
        workers.pool.cancel(task_id)

    assert all(stack.replace("\n", "").isprintable() and stack.isascii() for stack in seen)


async def test_other_processes_do_not_have_the_file(gate: Gate) -> None:
    """Neither programs that a task starts, with all descriptors that they can have, nor forks."""
    async with open_workers() as workers:
        task_id = await workers.post(stack_app.start_fork_and_sleep, gate.path)
        path = Path(f"{gate.path}.waiting")
        await until(lambda: path.exists() and "forked" in path.read_text(), "both have looked")
        assert "trioserver-stack" not in path.read_text()  # noqa: ASYNC240  # a moment
        assert await stack_with(workers, task_id, "sleep")
        workers.pool.cancel(task_id)


async def test_coroutines_share_a_stack() -> None:
    """That of their main thread, which the first line says; a task that spins is on it."""
    async with open_workers(app="stack_app:Together") as workers:
        (pid,) = workers.pids
        for _ in range(2):
            await workers.pool.task("sleep", stream=None, on_finish=None)
        spinning = await workers.pool.task("spin", stream=None, on_finish=None)
        stack = ""
        while " in spin\n" not in stack:
            try:
                stack = await workers.engine.stack(spinning)
            except KeyError:
                await trio.sleep(0.002)
        for task_id in range(spinning + 1):
            workers.pool.cancel(task_id)
    first, *frames = stack.splitlines()

    assert first == (
        f"The main thread of task worker 0 (pid {pid}), which runs this task and 2 others:"
    )
    assert functions("\n".join(frames)) == ["spin", "on_task"]


async def test_where_all_coroutines_wait_the_loop_is_shown() -> None:
    """Rather all frames of ours than none."""
    async with open_workers(app="stack_app:Together") as workers:
        task_id = await workers.pool.task("sleep", stream=None, on_finish=None)
        stack = ""
        while " in get_events\n" not in stack:
            try:
                stack = await workers.engine.stack(task_id)
            except KeyError:
                await trio.sleep(0.002)
        workers.pool.cancel(task_id)
    first, *frames = stack.splitlines()

    assert first.endswith(", which runs this task and 0 others:")
    assert functions("\n".join(frames))[-1] == "<module>"


# Any process of ours


SHOWS = """
import sys, time
from trioserver._stack_signal import show_stack_on_signal

def main():
    show_stack_on_signal(int(sys.argv[1]))
    print("ready", flush=True)
    time.sleep(600)

main()
"""


@contextmanager
def started(code: str, file: StackFile) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has printed a line."""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(file.fd)],
        pass_fds=[file.fd],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


@pytest.fixture
def file() -> Iterator[StackFile]:
    """A file for the stack of one process."""
    file = StackFile("event worker 1")
    yield file
    if not file._is_closed:
        file.close()


async def test_any_process_can_show_its_stack(file: StackFile) -> None:
    """All of it is there."""
    with started(SHOWS, file) as process:
        frames: list[str] = []
        while "line 8" not in "".join(frames):  # it has yet to begin to sleep
            frames = await file.read(process.pid)

    assert frames == [
        '  File "<string>", line 8 in main',
        '  File "<string>", line 10 in <module>',
    ]


async def test_a_process_without_a_handler_is_not_killed(file: StackFile) -> None:
    """By a signal that it does not know."""
    with started("import time; print(); time.sleep(600)", file) as process:
        with pytest.raises(RuntimeError, match=r"^event worker 1 \(pid \d+\) does not answer: its"):
            await file.read(process.pid)
        assert is_running(process.pid)


async def test_a_process_that_dies_while_it_is_asked(
    file: StackFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is dead, as long as nobody has waited for it and after that."""
    dead = r"^event worker 1 \(pid \d+\) does not answer: it is dead$"
    with started(SHOWS, file) as process:
        process.kill()
        await until(lambda: _stacks._state_of(process.pid) == "Z", "it is a zombie")
        monkeypatch.setattr(file, "_refuse_if_it_cannot", lambda _: None)
        with pytest.raises(RuntimeError, match=dead):
            await file.read(process.pid)
        process.wait(PATIENCE)  # noqa: ASYNC222  # it is over
        with pytest.raises(RuntimeError, match=dead):
            await file.read(process.pid)


async def test_a_dead_process_is_named_as_that(file: StackFile) -> None:
    """Also when it dies while it is asked, and when its file is given back."""
    dead = r"^event worker 1 \(pid \d+\) does not answer: it is dead$"
    with started(SHOWS, file) as process:
        with stopped(process.pid):
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    with pytest.raises(RuntimeError, match=dead):
                        await file.read(process.pid)

                with pytest.MonkeyPatch.context() as patched:
                    patched.setattr(_stacks, "_STOPPED", frozenset())
                    nursery.start_soon(ask)
                    await trio.testing.wait_all_tasks_blocked()
                    await trio.sleep(0.01)
                    file.close()
        process.kill()
        process.wait(PATIENCE)
        with pytest.raises(RuntimeError, match=dead):
            await file.read(process.pid)
        with pytest.raises(RuntimeError, match=dead):
            await StackFile("event worker 1").read(process.pid)


def test_machinery_inside_the_apps_calls_stays() -> None:
    """Only what lies below the app's first frame goes."""
    frames = [f'  File "{path}", line 1 in f' for path in ("/ours/a", "/app/b", "/ours/c")]

    assert without_machinery(frames, ["/ours/"]) == frames[:2]
    assert without_machinery(frames[2:], ["/ours/"]) == frames[2:]
    assert without_machinery([], ["/ours/"]) == []
