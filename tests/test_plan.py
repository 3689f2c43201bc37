"""What a process knows of an app that it does not import, and how a fresh one checks it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from modules import directory_of_modules
from serving import PATIENCE, ROOT, is_running
from workers import until

from trioserver import AppError, Settings
from trioserver._app import load_app
from trioserver._processes import _checking
from trioserver._processes._checking import check_anew
from trioserver._processes._plan import Plan, plan_of
from trioserver._processes._python import python_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]

SHOP = """\
import helper
from trioserver import Settings

class App:
    settings = Settings(bind="127.0.0.1:0", task_worker_num=1)

    async def on_receive(self, stream, data): ...
    async def on_task(self, task): ...
    async def on_finish(self, completion): ...
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with an app in ``shop.py``."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "helper.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    with directory_of_modules(tmp_path):
        yield tmp_path


@pytest.fixture
def plan(here: Path) -> Plan:
    """That of the app, with one setting that is not its own."""
    app = load_app("shop:App")
    assert app.settings is not None
    return plan_of(app, attrs.evolve(app.settings, max_conn=7))


@pytest.fixture
def run(here: Path) -> Run:
    """Run Python there to its end: exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=here,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def serve_by_two(*arguments: str) -> tuple[str, ...]:
    return ("-m", "trioserver", *arguments, "--worker-num=2")


def test_what_is_in_it(plan: Plan, here: Path) -> None:
    """All that a manager needs."""
    assert (plan.name, plan.spec, plan.main) == ("shop:App", "shop:App", None)
    assert plan.callbacks == ("on_receive", "on_task", "on_finish")
    assert plan.has_async_task
    assert plan.settings.max_conn == 7
    assert plan.settings.task_timeout == math.inf
    assert plan.path == tuple(sys.path)
    assert {str(here / "shop.py"), str(here / "helper.py")} <= set(plan.files)


def test_files_are_the_apps_own(plan: Plan) -> None:
    """Neither ours, nor installed ones, nor those of Python."""
    for module in (trio, os, attrs, sys.modules["trioserver"]):
        assert module.__file__ not in plan.files


def test_it_survives_as_text(plan: Plan) -> None:
    """Whole, infinite settings too."""
    assert Plan.from_json(plan.to_json()) == plan
    assert "\n" not in plan.to_json()


async def test_a_fresh_interpreter_makes_the_same_one(plan: Plan, here: Path) -> None:
    """Where nothing has changed."""
    fresh = await check_anew(plan)

    own = {str(here / "shop.py"), str(here / "helper.py")}
    assert set(fresh.files) == own
    assert attrs.evolve(fresh, files=plan.files) == plan


async def test_new_code_counts(plan: Plan, here: Path) -> None:
    """And not what this process has loaded."""
    (here / "shop.py").write_text(SHOP.replace("async def on_task", "def on_task"))

    assert plan.has_async_task
    assert not (await check_anew(plan)).has_async_task


async def test_settings_stay(plan: Plan, here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Those that the code has changed are named once, and wait for a restart."""
    (here / "shop.py").write_text(SHOP.replace("task_worker_num=1", "backlog=3, max_conn=9"))
    fresh = await check_anew(plan)

    assert fresh.settings == plan.settings
    (message,) = caplog.messages
    assert message == (
        "settings of shop:App have changed (task_worker_num, max_conn, backlog): a restart takes "
        "them, a reload does not"
    )


async def test_code_that_raises(plan: Plan, here: Path) -> None:
    """The error says what, and has the traceback from the app's own file on."""
    (here / "shop.py").write_text("1 / 0\n")
    with pytest.raises(
        AppError, match=r"^shop:App cannot be loaded: ZeroDivisionError: division by zero$"
    ) as caught:
        await check_anew(plan)

    lines = caught.value.remote_traceback.splitlines()
    assert lines[:2] == [
        "Traceback (most recent call last):",
        f'  File "{here}/shop.py", line 1, in <module>',
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "module 'shop' has no attribute 'App'"),
        (
            SHOP.replace("on_finish", "finish"),
            "task_worker_num is 1, but shop:App has no on_finish",
        ),
        ("raise SystemExit(3)", "shop:App cannot be loaded: SystemExit: 3"),
        ("import os; os._exit(3)", "shop:App cannot be loaded: its process ended with exit code 3"),
        (
            "import os; os.kill(os.getpid(), 9)",
            "shop:App cannot be loaded: its process was killed by signal 9",
        ),
    ],
)
async def test_code_that_is_no_app(plan: Plan, here: Path, text: str, reason: str) -> None:
    """Whatever it does, the error says what is wrong."""
    (here / "shop.py").write_text(text)
    with pytest.raises(AppError, match=f"^{reason}$") as caught:
        await check_anew(plan)
    assert ("Traceback" in caught.value.remote_traceback) is ("SystemExit" in reason)


SLOW = """\
import os, time
with open("pid.new", "w") as file:
    file.write(str(os.getpid()))
os.rename("pid.new", "pid")
time.sleep(600)
"""


async def test_code_that_hangs(plan: Plan, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its time, and is killed then."""
    monkeypatch.setattr(_checking, "_CHECK_TIME", 2)
    (here / "shop.py").write_text(SLOW)
    with pytest.raises(AppError, match=r"^shop:App has not been loaded after 2 s$"):
        await check_anew(plan)


async def test_a_check_is_cancelled(plan: Plan, here: Path) -> None:
    """Its process is gone then."""
    (here / "shop.py").write_text(SLOW)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(check_anew, plan)
        await until((here / "pid").exists, "the module is imported")
        pid = int((here / "pid").read_text())
        assert is_running(pid)
        nursery.cancel_scope.cancel()
    assert not is_running(pid)


HALF_AN_ANSWER = """\
import os, sys
os.write(int(sys.argv[1]), b'{"plan": "')
os._exit(3)
"""


async def test_an_answer_that_is_not_whole(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full, or a process that is killed, is no reason to end the server."""

    def command(_verb: str, *arguments: str) -> list[str]:
        return [sys.executable, "-c", HALF_AN_ANSWER, *arguments]

    monkeypatch.setattr(_checking, "python_command", command)
    with pytest.raises(AppError, match=r"^shop:App cannot be loaded: .*not whole.*exit code 3$"):
        await check_anew(plan)


CHECK = """\
import sys, trio
from trioserver._processes._checking import check_anew
from trioserver._processes._plan import Plan

trio.run(check_anew, Plan.from_json(sys.argv[1]))
"""


async def test_a_check_dies_with_its_server(plan: Plan, here: Path) -> None:
    """However that dies, and whatever the module does."""
    (here / "shop.py").write_text(SLOW)
    command = [sys.executable, "-c", CHECK, plan.to_json()]
    process = await trio.lowlevel.open_process(command)
    await until((here / "pid").exists, "the module is imported")
    pid = int((here / "pid").read_text())
    process.kill()
    await process.wait()
    await until(lambda: not is_running(pid), "the check is gone")


async def test_an_app_without_a_name(plan: Plan) -> None:
    """Nobody else can load it."""
    with pytest.raises(AppError, match=r"^shop:App cannot be checked by another process: .*name"):
        await check_anew(attrs.evolve(plan, spec=None))


@pytest.mark.parametrize("command", [("script.py",), ("-m", "script")])
async def test_an_app_in_a_script(here: Path, run: Run, command: tuple[str, ...]) -> None:
    """The script is run as ``__mp_main__``, as multiprocessing does it."""
    (here / "script.py").write_text(
        f"{SHOP}\n"
        "print(__name__)\n"
        "if __name__ == '__main__':\n"
        "    from trioserver._app import load_app\n"
        "    from trioserver._processes._plan import plan_of\n"
        "    app = load_app(App)\n"
        "    print(plan_of(app, app.settings).to_json())\n"
    )
    _, out, _ = run(*command)
    plan = Plan.from_json(out.splitlines()[1])
    assert plan.spec == "__main__:App"
    assert plan.main == ("script" if command[0] == "-m" else str(here / "script.py"))

    fresh = await check_anew(plan)
    assert (fresh.spec, fresh.main) == (plan.spec, plan.main)
    assert str(here / "script.py") in fresh.files


async def test_a_script_without_a_guard(here: Path, plan: Plan) -> None:
    """It does not serve in the process that checks it."""
    (here / "script.py").write_text(f"{SHOP}\nimport trioserver\ntrioserver.run(App, argv=())\n")
    script = attrs.evolve(plan, spec="__main__:App", main=str(here / "script.py"))
    with pytest.raises(AppError, match=r"^shop:App cannot be loaded: SystemExit: 2$"):
        await check_anew(script)


def test_the_interpreter_is_called_alike(run: Run) -> None:
    """With the flags that this one has."""
    code = "from trioserver._processes._python import python_command as f; print(*f('x')[1:])"
    _, out, err = run("-O", "-B", "-W", "error", "-X", "dev", "-c", code)

    assert (out, err) == ("-O -B -Werror -X dev -m trioserver._processes x\n", "")


def test_an_unknown_verb(run: Run) -> None:
    """Is refused."""
    command = python_command("dance")[1:]

    assert run(*command) == (1, "", "trioserver._processes: 'dance' is unknown\n")


def test_a_manager_has_not_imported_the_app(run: Run, here: Path) -> None:
    """It knows from a child that there is to be one, whoever says so."""
    (here / "trace.py").write_text(
        "import json, sys, types, trioserver._cli as cli\n"
        "manager = types.ModuleType('manager')\n"
        "def run_manager(plan):\n"
        "    print(plan.spec, plan.settings.worker_num, 'shop' in sys.modules)\n"
        "    return 7\n"
        "manager.run_manager = run_manager\n"
        "sys.modules['trioserver._processes._running'] = manager\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    assert run("trace.py", "shop:App", "--worker-num=2") == (7, "shop:App 2 False\n", "")

    (here / "shop.py").write_text(SHOP.replace("Settings(", "Settings(worker_num=3, "))
    assert run("trace.py", "shop:App") == (7, "shop:App 3 False\n", "")


def test_what_is_wrong_is_said_once(run: Run, here: Path) -> None:
    """By the child, as ever; before anything has started."""
    (here / "shop.py").write_text("print('loading')\nraise LookupError('no shop')\n")
    code, out, err = run(*serve_by_two("shop:App"))

    assert (code, out) == (2, "loading\n")
    assert err == (
        "Traceback (most recent call last):\n"
        f'  File "{here}/shop.py", line 2, in <module>\n'
        "    raise LookupError('no shop')\n"
        "LookupError: no shop\n"
        "trioserver: error: shop:App cannot be loaded: LookupError: no shop\n"
    )


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("import os; os._exit(0)", "exit code 0"),
        ("import os; os._exit(5)", "exit code 5"),
        ("import os; os.kill(os.getpid(), 11)", "signal 11"),
    ],
)
def test_an_import_that_ends_the_process(run: Run, here: Path, text: str, how: str) -> None:
    """A line says so."""
    (here / "shop.py").write_text(text)

    assert run(*serve_by_two("shop:App")) == (
        2,
        "",
        f"trioserver: error: shop:App cannot be loaded: it ends the process with {how}\n",
    )


def test_threads_of_an_import_hold_nothing_up(run: Run, here: Path) -> None:
    """The child leaves without them, and without what runs at exit."""
    (here / "shop.py").write_text(
        f"{SHOP}\nimport atexit, threading, time\n"
        "atexit.register(print, 'at exit')\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "print('loaded')\n"
    )
    code, out, _ = run(*serve_by_two("shop:App", "--bind=no.such.address.invalid:1"))

    assert (code, out) == (2, "loaded\n")


def test_an_app_that_no_event_worker_can_import(run: Run, here: Path) -> None:
    """The message says why."""
    flags = ["--worker-num=2", "--task-worker-num=0"]

    code, out, err = run("-c", f"{SHOP}\nimport trioserver\ntrioserver.run(App, argv={flags})")

    assert (code, out) == (2, "")
    assert err == (
        "trioserver: error: __main__:App must be importable by name in an event worker "
        "(module:qualname), but no other process can import this __main__\n"
    )


def test_settings_as_text_are_those_that_there_are() -> None:
    """No field is of a kind that JSON cannot carry."""
    values = json.loads(json.dumps(attrs.asdict(Settings())))

    assert Settings(**values) == Settings()
