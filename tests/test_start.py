"""Starts that fail or are ended, as a user sees them: real processes, exit codes, stderr."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import types
from typing import TYPE_CHECKING

import pytest
from serving import PATIENCE, ROOT, ServerProcess, wait_until

import trioserver
from trioserver._importing import UNGUARDED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]
    Start = Callable[..., ServerProcess]

ECHO = """\
async def on_receive(stream, data):
    await stream.send_all(data)
"""
SCRIPT = """\
import trioserver

class App:
    settings = trioserver.Settings(bind="127.0.0.1:0", task_worker_num=1)

    async def on_receive(self, stream, data):
        await stream.send_all(data)

    def on_task(self, task): ...
    async def on_finish(self, completion): ...

"""
# Root keeps the right to bind any port unless it is taken away; -1 for those who never had it.
WITHOUT_PRIVILEGE = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 10)
os.execv(sys.executable, [sys.executable, "-m", "trioserver", "echo", "--bind=127.0.0.1:80"])
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with an app in ``echo.py``."""
    (tmp_path / "echo.py").write_text(ECHO)
    return tmp_path


@pytest.fixture
def run(here: Path) -> Run:
    """Run a command of Python's there to its end: exit code, stdout and stderr."""

    def run(
        *arguments: str, command: tuple[str, ...] = ("-m", "trioserver")
    ) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, *command, *arguments],
            cwd=here,
            env={**os.environ, "PYTHONPATH": ROOT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def refused(*problems: str) -> tuple[int, str, str]:
    return 2, "", "".join(f"trioserver: error: {problem}\n" for problem in problems)


CONSOLE_SCRIPT = "import trioserver.__main__ as script; script.main()"


@pytest.mark.parametrize("command", [("-m", "trioserver"), ("-c", CONSOLE_SCRIPT)])
def test_a_missing_module(run: Run, command: tuple[str, ...]) -> None:
    """The module and the console script say the same."""
    assert run("ehco", command=command) == refused("no module named 'ehco'")


def test_the_current_directory_counts_in_safe_mode(run: Run) -> None:
    """Python's -P leaves it out, as a console script does."""
    code, out, _ = run("echo", "--check", command=("-P", "-m", "trioserver"))

    assert code == 0
    assert out.startswith("app = echo\n")


def test_an_address_in_use(run: Run) -> None:
    """Which one, and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        assert run("echo", "--bind=127.0.0.1:0", f"--bind={address}") == refused(
            f"{address}: address already in use"
        )


def test_a_privileged_port(run: Run) -> None:
    """The message says what is missing."""
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
        if int(file.read()) <= 80:
            pytest.skip("port 80 is free for all here")

    assert run(command=("-c", WITHOUT_PRIVILEGE)) == refused(
        "127.0.0.1:80: permission denied (ports below 1024 need privileges)"
    )


def test_a_file_where_a_unix_socket_should_be(run: Run, here: Path) -> None:
    """It is somebody's, and stays."""
    (here / "app.sock").write_text("precious")

    assert run("echo", "--bind=unix:app.sock") == refused(
        f"unix:{here}/app.sock: the file exists and is not a socket"
    )
    assert (here / "app.sock").read_text() == "precious"


def test_a_unix_socket_of_a_living_server(run: Run, here: Path) -> None:
    """It is in use."""
    path = str(here / "app.sock")
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(path)
        taken.listen()

        assert run("echo", "--bind=unix:app.sock") == refused(
            f"unix:{path}: address already in use"
        )


def test_a_unix_socket_of_a_dead_server(start_server: Start, here: Path) -> None:
    """Its file is taken over."""
    path = str(here / "app.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    server = start_server("echo", "--bind=unix:app.sock")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(b"hello")

        assert client.recv(5) == b"hello"
    assert server.stop() == 0
    assert not os.path.exists(path)


def test_on_worker_start_that_raises(run: Run, here: Path) -> None:
    """The traceback begins in the app's file."""
    (here / "app.py").write_text(
        f"{ECHO}\nasync def on_worker_start(server):\n    raise LookupError('no database')\n"
    )

    code, out, err = run("app", "--bind=127.0.0.1:0")

    assert (code, out) == (2, "")
    assert err == (
        "Traceback (most recent call last):\n"
        f'  File "{here}/app.py", line 5, in on_worker_start\n'
        "    raise LookupError('no database')\n"
        "LookupError: no database\n"
        "trioserver: error: on_worker_start raised LookupError: no database\n"
    )


def test_a_server_that_fails_later(run: Run, here: Path) -> None:
    """What is no refusal has its traceback, and exit code 1."""
    (here / "app.py").write_text(
        f"{ECHO}\nasync def on_worker_start(server):\n    raise BaseExceptionGroup('', "
        "[BaseException('odd')])\n"
    )
    code, out, err = run("app", "--bind=127.0.0.1:0")

    assert (code, out) == (1, "")
    assert "ERROR trioserver.server: the server failed\n" in err
    assert "BaseException: odd\n" in err


def test_an_app_that_fails_in_a_task_worker(run: Run, here: Path) -> None:
    """Its traceback comes from there, and nothing has been accepted."""
    (here / "app.py").write_text(
        f"{ECHO}\n"
        "def on_task(task): ...\n"
        "async def on_finish(completion): ...\n"
        "def on_task_worker_start(worker_id):\n"
        "    raise LookupError('no model')\n"
    )
    code, out, err = run("app", "--bind=127.0.0.1:0", "--task-worker-num=1")

    assert (code, out) == (2, "")
    assert f'  File "{here}/app.py", line 7, in on_task_worker_start\n' in err
    assert err.endswith(
        "LookupError: no model\n"
        "trioserver: error: task worker 0 cannot start: LookupError: no model\n"
    )
    assert "listening" not in err


def test_a_script_without_a_guard(run: Run, here: Path) -> None:
    """One line says what to do, however many workers have run it."""
    (here / "script.py").write_text(f"{SCRIPT}trioserver.run(App)\n")

    assert run("--task-worker-num=2", command=("script.py",)) == refused(UNGUARDED)


def test_a_script_that_another_process_runs_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the user's own multiprocessing starts may not serve either."""
    child = types.SimpleNamespace(name="SpawnProcess-1", _inheriting=True)
    monkeypatch.setattr("multiprocessing.current_process", lambda: child)
    with pytest.raises(SystemExit) as caught:
        trioserver.run("echo", argv=())

    assert caught.value.code == 2
    assert capsys.readouterr() == refused(UNGUARDED)[1:]


def test_a_script_with_a_guard(start_server: Start, here: Path) -> None:
    """It serves until a signal, goes on afterwards, and has its signal handlers back."""
    (here / "script.py").write_text(
        "import signal\n"
        f"{SCRIPT}"
        "if __name__ == '__main__':\n"
        "    trioserver.run(App)\n"
        "    print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
    )
    server = start_server("--log-level=info", command=("script.py",))
    assert server.ask(b"hello") == b"hello"
    assert server.stop(signal.SIGINT) == 0
    assert server.printed == ["True"]


@pytest.mark.parametrize(
    ("lines", "arguments", "result"),
    [
        ("trioserver.run(App)", ("--check",), 0),
        ("trioserver.run('script:Ap')", (), 2),
        ("trioserver.run(App)", ("--backlog=0",), 2),
        ("trioserver.run(App)", ("echo",), 2),
        ("trioserver.run(App, trioserver.Settings(bind='256.0.0.1:0'), argv=())", ("echo",), 2),
    ],
)
def test_what_run_checks(
    run: Run, here: Path, lines: str, arguments: tuple[str, ...], result: int
) -> None:
    """As on the command line; only the app is given in code."""
    (here / "script.py").write_text(f"{SCRIPT}if __name__ == '__main__':\n    {lines}\n")
    code, _, err = run(*arguments, command=("script.py",))

    assert code == result
    assert "Traceback" not in err
    assert bool(err) == bool(result)


def test_settings_given_to_run_replace_those_of_the_app(run: Run, here: Path) -> None:
    """All of them: what is not said is the default."""
    (here / "script.py").write_text(
        f"{SCRIPT}if __name__ == '__main__':\n"
        "    trioserver.run(App, trioserver.Settings(backlog=5), argv=['--check'])\n"
    )
    code, out, _ = run(command=("script.py",))

    assert code == 0
    assert "\nbacklog = 5  (from settings of __main__:App)\n" in out
    assert "\ntask_worker_num = 0  (default)\n" in out


def test_an_app_that_no_worker_can_import(run: Run) -> None:
    """The message says why."""
    script = f"{SCRIPT}trioserver.run(App, argv=())"

    assert run(command=("-c", script)) == refused(
        "__main__:App must be importable by name in a task worker (module:qualname), but no other "
        "process can import this __main__"
    )


SLOW_STARTS = {
    "import": "import time\nprint('begun', flush=True)\nfor _ in range(6000): time.sleep(0.01)\n",
    "on_worker_start": (
        f"import trio\n{ECHO}\n"
        "async def on_worker_start(server):\n    print('begun')\n    await trio.sleep_forever()\n"
    ),
    "on_task_worker_start": (
        f"import time\n{ECHO}\n"
        "def on_task(task): ...\n"
        "async def on_finish(completion): ...\n"
        "def on_task_worker_start(worker_id):\n    print('begun')\n    time.sleep(60)\n"
    ),
}


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", SLOW_STARTS)
def test_a_signal_during_the_start(
    start_server: Start, here: Path, where: str, signum: int
) -> None:
    """It ends at once, with exit code 0 and no traceback."""
    (here / "app.py").write_text(SLOW_STARTS[where])
    workers = "1" if where == "on_task_worker_start" else "0"
    server = start_server("app", "--bind=127.0.0.1:0", f"--task-worker-num={workers}", wait=False)
    server.wait_printed("begun")
    assert server.stop(signum) == 0
    assert "Traceback" not in server.log


def test_a_signal_during_the_start_of_run(start_server: Start, here: Path) -> None:
    """The script goes on after it, as after a clean stop."""
    (here / "app.py").write_text(SLOW_STARTS["import"])
    (here / "script.py").write_text("import trioserver\ntrioserver.run('app')\nprint('after')\n")
    server = start_server(command=("script.py",), wait=False)
    server.wait_printed("begun")
    assert server.stop() == 0
    assert server.printed == ["begun", "after"]
    assert server.log == ""


def test_an_early_signal_is_not_lost(start_server: Start, here: Path) -> None:
    """One that comes between the app and Trio ends the start all the same."""
    (here / "app.py").write_text(
        "import os, signal\n"
        "import trioserver._signalled as running\n"
        f"{ECHO}\n"
        "log_to_stderr = running.log_to_stderr\n"
        "def signalled(level):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    log_to_stderr(level)\n"
        "running.log_to_stderr = signalled\n"
    )
    server = start_server("app", "--bind=127.0.0.1:0", wait=False)
    wait_until(lambda: server.process.poll() is not None, "the end")

    assert server.process.returncode == 0
    assert server.log == ""


def test_open_files_are_allowed_or_missed(start_server: Start, here: Path) -> None:
    """The soft limit is raised to what max_conn needs; a warning has both numbers."""
    (here / "app.py").write_text(
        "import resource\n"
        f"{ECHO}\n"
        "async def on_worker_start(server):\n"
        "    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    script = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (100, 500)); " + CONSOLE_SCRIPT
    limited = ("-c", script)
    enough = start_server("app", "--bind=127.0.0.1:0", "--max-conn=200", command=limited)
    assert enough.printed == ["264"]
    assert "WARNING" not in enough.log
    assert enough.stop() == 0

    scarce = start_server("app", "--bind=127.0.0.1:0", "--max-conn=1000", command=limited)
    assert scarce.printed == ["500"]
    assert scarce.log.splitlines()[0].endswith(
        "WARNING trioserver.server: max_conn 1000 needs 1064 open files, but the limit is 500"
    )
    assert scarce.stop() == 0
