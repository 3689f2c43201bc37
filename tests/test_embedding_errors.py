"""What comes out of ``async with open_task_pool(...)`` when the body, or the app, is at fault."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import traceback
from typing import TYPE_CHECKING

import embedded_app
import pytest
import task_app
import trio
from serving import PATIENCE, ROOT, children_of, is_running

from trioserver import AppError, Settings, open_task_pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from workers import Gate

ONE = Settings(task_worker_num=1, max_wait_time=PATIENCE)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Nobody has heard anything yet."""
    yield
    embedded_app.first.finished.clear()


@pytest.mark.parametrize(
    "raised",
    [
        ValueError("no good"),
        SystemExit(3),
        KeyboardInterrupt(),
        StopAsyncIteration(),
        GeneratorExit(),
        ExceptionGroup("of the body", [ValueError("one"), KeyError("two")]),
        BaseExceptionGroup("of the body", [SystemExit(4)]),
    ],
    ids=repr,
)
async def test_what_the_body_raises_leaves_as_it_is(raised: BaseException, gate: Gate) -> None:
    """In no group of ours, and without a word of our nurseries in its context."""

    async def fail() -> None:
        async with open_task_pool(embedded_app.first, ONE) as pool:
            await pool.task((task_app.wait, gate.path))
            await gate.wait_for()
            raise raised

    with pytest.raises(type(raised)) as caught:
        await fail()

    (pid,) = gate.waiting
    assert caught.value is raised
    assert (raised.__cause__, raised.__context__) == (None, None)
    assert not is_running(pid)
    assert embedded_app.first.finished == []


async def test_what_a_nursery_of_the_body_raises_leaves_as_it_is() -> None:
    """Its group, and not a group of that."""

    async def fail() -> None:
        raise ValueError("no good")

    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match=r"^no good$")):
        async with open_task_pool(embedded_app.first, ONE), trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()


class Interrupted:
    """As a Ctrl-C has it that comes while ``on_finish`` runs."""

    def on_task(self, task: object) -> None: ...

    async def on_finish(self, completion: object) -> None:
        raise KeyboardInterrupt


interrupted = Interrupted()


async def test_an_interrupt_anywhere_is_in_no_group() -> None:
    """Nor is one that comes while a loop of the pool runs, and the body waits."""

    async def wait_for_it() -> None:
        async with open_task_pool(interrupted, ONE) as pool:
            await pool.task(None)
            await trio.sleep_forever()

    with trio.fail_after(PATIENCE), pytest.raises(KeyboardInterrupt) as caught:
        await wait_for_it()
    assert "".join(traceback.format_exception(caught.value)).count("Traceback") == 1


async def test_a_cancelled_body_ends_at_once(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    """Tasks are killed with their workers, nobody hears of them, and the log counts them."""
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
        async with open_task_pool(embedded_app.first, ONE) as pool:
            await pool.task((task_app.wait, gate.path))
            await pool.task((task_app.echo, 1))
            (pid,) = await gate.wait_for()
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert not is_running(pid)
    assert embedded_app.first.finished == []
    assert [record.getMessage() for record in caplog.records] == ["2 tasks and callbacks were cut"]


async def test_a_stop_can_be_cancelled(gate: Gate) -> None:
    """Also while leaving waits for tasks, which may be for long."""
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
        async with open_task_pool(embedded_app.first, ONE) as pool:
            await pool.task((task_app.wait, gate.path))
            (pid,) = await gate.wait_for()
            scope.deadline = trio.current_time()

    assert scope.cancelled_caught
    assert not is_running(pid)


async def test_a_body_that_fails_and_is_cancelled(gate: Gate) -> None:
    """The error of its own is what counts, as it is without a pool."""

    async def fail(scope: trio.CancelScope) -> None:
        async with open_task_pool(embedded_app.first, ONE) as pool:
            await pool.task((task_app.wait, gate.path))
            await gate.wait_for()
            scope.cancel()
            raise ValueError("no good")

    with trio.CancelScope() as scope, pytest.raises(ValueError, match=r"^no good$"):
        await fail(scope)


def hidden() -> type:
    class Hidden(embedded_app.Teller):
        pass

    return Hidden


NO_WORKERS = "task_worker_num is 0: a task pool needs task workers"


@pytest.mark.parametrize(
    ("app", "settings", "reason"),
    [
        (embedded_app.NoTask, ONE, "task_worker_num is 1, but embedded_app:NoTask has no on_task"),
        (
            embedded_app.NoFinish,
            ONE,
            "task_worker_num is 1, but embedded_app:NoFinish has no on_finish",
        ),
        (embedded_app.first, Settings(task_worker_num=0), NO_WORKERS),
        (embedded_app.first, None, NO_WORKERS),
        (
            hidden(),
            ONE,
            (
                f"{__name__}:hidden.<locals>.Hidden must be importable by name in a task worker "
                "(module:qualname), but it is made inside a function"
            ),
        ),
        (
            embedded_app.Teller(),
            ONE,
            (
                "embedded_app:Teller must be importable by name in a task worker "
                "(module:qualname), but it has no name in module 'embedded_app', where its class "
                "is: give 'module:attr' in its place"
            ),
        ),
        (
            "embedded_app:frist",
            ONE,
            "module 'embedded_app' has no attribute 'frist' (did you mean 'first'?)",
        ),
        (
            embedded_app.FailsToOpen,
            ONE,
            "task worker 0 cannot start: RuntimeError: no database for 0",
        ),
    ],
)
async def test_apps_that_cannot_start(app: object, settings: Settings | None, reason: str) -> None:
    """The reason is an error of its own, bare, and the body does not begin."""
    with pytest.raises(AppError, match=f"^{re.escape(reason)}$"):
        async with open_task_pool(app, settings):
            pytest.fail("there is nothing to run tasks")


SCRIPT = """\
import trio, trioserver

class App:
    settings = trioserver.Settings(task_worker_num=1)
    def on_task(self, task):
        return task.data * 2
    async def on_finish(self, completion):
        print("finished", completion.result, flush=True)

async def main():
    async with trioserver.open_task_pool(App) as pool:
        print(await pool.run_task(21), flush=True)
        await pool.task(2)
        {then}

{start}
"""


def _run(directory: Path, then: str, start: str) -> subprocess.Popen[str]:
    script = directory / "script.py"
    script.write_text(SCRIPT.format(then=then, start=start))
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(script)],  # workers inherit that
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ROOT},
        start_new_session=True,
    )


def test_a_script(tmp_path: Path) -> None:
    """Its own app is found by the workers, which run the script again; nobody has a warning."""
    script = _run(tmp_path, "pass", "if __name__ == '__main__': trio.run(main)")

    assert script.communicate(timeout=PATIENCE) == ("42\nfinished 4\n", "")
    assert script.returncode == 0


def test_a_script_without_a_guard(tmp_path: Path) -> None:
    """It ends, and says what is missing."""
    script = _run(tmp_path, "pass", "trio.run(main)")

    out, err = script.communicate(timeout=PATIENCE)

    assert (out, script.returncode) == ("", 1)
    assert "put what starts the server under if __name__ == '__main__':" in err.splitlines()[-1]


def test_ctrl_c_ends_a_script_with_one_traceback(tmp_path: Path) -> None:
    """That of its own KeyboardInterrupt, in no group; workers add nothing, and are gone."""
    script = _run(
        tmp_path, "await trio.sleep_forever()", "if __name__ == '__main__': trio.run(main)"
    )
    assert script.stdout is not None
    assert script.stdout.readline() == "42\n"
    # Or the interrupt might come anywhere in what leads to that.
    assert script.stdout.readline() == "finished 4\n"
    children = children_of(script.pid)
    os.killpg(script.pid, signal.SIGINT)
    _, err = script.communicate(timeout=PATIENCE)

    assert err.count("Traceback") == 1
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert "Group" not in err
    assert children
    assert not any(map(is_running, children))


def test_ctrl_c_while_a_result_is_unpickled(tmp_path: Path) -> None:
    """It is not taken for the result's own failure: the program ends."""
    (tmp_path / "slow.py").write_text(
        "import time\n"
        "def load():\n"
        "    print('unpickling', flush=True)\n"
        "    deadline = time.monotonic() + 0.5\n"
        "    while time.monotonic() < deadline: pass\n"
        "    return 42\n"
        "class Slow:\n"
        "    def __reduce__(self): return load, ()\n"
    )
    (tmp_path / "script.py").write_text(
        "import trio, trioserver, slow\n"
        "class App:\n"
        "    settings = trioserver.Settings(task_worker_num=1)\n"
        "    def on_task(self, task): return slow.Slow()\n"
        "    async def on_finish(self, completion): print(completion.result, flush=True)\n"
        "async def main():\n"
        "    async with trioserver.open_task_pool(App) as pool:\n"
        "        await pool.task(None)\n"
        "        await trio.sleep_forever()\n"
        "if __name__ == '__main__': trio.run(main)\n"
    )
    script = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert script.stdout is not None
    # The worker, which sees whether it unpickles, says so first.
    assert script.stdout.readline() == script.stdout.readline() == "unpickling\n"
    os.kill(script.pid, signal.SIGINT)
    out, err = script.communicate(timeout=PATIENCE)

    assert (out, err.splitlines()[-1]) == ("42\n", "KeyboardInterrupt")
    assert "cannot be unpickled" not in err
