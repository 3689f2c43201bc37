"""The reload of a single process: it executes itself anew, and nobody outside can tell."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import types
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from serving import PATIENCE, ROOT, ServerProcess, wait_until

from trioserver import Settings
from trioserver._anew import Anew
from trioserver._app import load_app
from trioserver._stopping import Stopping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    StartServer = Callable[..., ServerProcess]
    Serve = Callable[..., ServerProcess]

APP = """\
import os, sys, time
from trioserver import EofFraming

MARK = 0
framing = EofFraming(b"\\n")

def is_server():
    return os.path.exists("pid") and open("pid").read().strip() == str(os.getpid())

if is_server() and os.path.exists("slow"):
    open("importing", "a").close()
    while os.path.exists("slow"):
        time.sleep(0.01)

async def on_worker_start(server):
    print("descriptors", len(os.listdir("/proc/self/fd")))
    print("variables", [name for name in os.environ if "INHERITANCE" in name])

async def on_worker_stop(server):
    print("worker stopped")

async def on_receive(stream, data):
    if data == b"wait":
        import trio
        print("waits")
        while not os.path.exists("go"):
            await trio.sleep(0.01)
        await stream.send_frame(b"waited")
    elif data == b"plain":
        await stream.send_frame(b"%d %d" % (MARK, stream.id))
    else:
        print("posted", await stream.task(data))

def on_task(task):
    return task.data

async def on_finish(completion):
    print("finished", completion.task_id)
    await completion.stream.send_frame(b"%d %s" % (MARK, completion.result))
"""
SCRIPT = """\
import app, trioserver

if __name__ == "__main__":
    trioserver.run("app")
"""
BARE = ("-m", "trioserver", "app")


@pytest.fixture
def serve(start_server: StartServer, tmp_path: Path) -> Serve:
    """Serve the app in a directory of the test's own."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "script.py").write_text(SCRIPT)

    def serve(*more: str, command: tuple[str, ...] = BARE) -> ServerProcess:
        # All that is installed, also for an interpreter that is called by another name.
        path = [str(tmp_path), ROOT, *filter(None, sys.path)]
        # Two versions of a file may have the same length and second, for which the cache is blind.
        return start_server(
            "--bind=127.0.0.1:0",
            "--pid-file=pid",
            *more,
            command=command,
            env={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(path)},
        )

    return serve


def change(directory: Path, mark: int) -> None:
    """Change the app's code."""
    (directory / "app.py").write_text(APP.replace("MARK = 0", f"MARK = {mark}"))


def wait_ready(server: ServerProcess, times: int) -> None:
    wait_until(
        lambda: server.log.count(": ready in ") == times or server.process.poll() is not None,
        "ready once more",
    )
    assert server.process.poll() is None, server.log


def reload(server: ServerProcess, signum: int = signal.SIGUSR1) -> None:
    times = server.log.count(": ready in ")
    server.process.send_signal(signum)
    wait_ready(server, times + 1)


class Clients:
    """Ask on a new connection each time; keep the answers, and what went wrong."""

    def __init__(self, port: int, number: int = 4) -> None:
        self.answers: list[bytes] = []
        self.errors: list[str] = []
        self._port = port
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(number)]

    @contextmanager
    def asking(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in self._threads:
                thread.join()

    def _ask_on(self) -> None:
        while not self._is_over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), PATIENCE) as client:
                    client.sendall(b"hello\n")
                    self.answers.append(client.makefile("rb").readline())
            except OSError as exc:
                self.errors.append(repr(exc))


@pytest.mark.parametrize("command", [BARE, ("script.py",)], ids=["module", "script"])
def test_nobody_notices(serve: Serve, tmp_path: Path, command: tuple[str, ...]) -> None:
    """Reloads under load: all are answered, at last by the new code, and no task is lost."""
    server = serve("--task-worker-num=2", command=command)
    clients = Clients(server.port)
    with clients.asking():
        for mark in range(1, 4):
            change(tmp_path, mark)
            reload(server)
            answer = b"%d hello\n" % mark
            wait_until(lambda answer=answer: answer in clients.answers, "new code")  # type: ignore[misc]
    assert server.stop() == 0

    assert clients.errors == []
    assert set(clients.answers) == {b"%d hello\n" % mark for mark in range(4)}
    posted = [line.split()[1] for line in server.printed if line.startswith("posted")]
    finished = [line.split()[1] for line in server.printed if line.startswith("finished")]
    assert len(posted) == len(clients.answers)
    assert len(set(posted)) == len(posted)  # ids go on
    assert sorted(finished) == sorted(posted)
    assert server.log.count("executing anew") == 3
    assert "Traceback" not in server.log


def test_what_stays_and_what_does_not(serve: Serve, tmp_path: Path) -> None:
    """The pid, its file, the port and ids stay; descriptors, variables and children do not pile."""
    server = serve("--task-worker-num=1")
    for number in range(5):
        assert server.ask(b"plain\n") == b"0 %d\n" % (number + 1)
        reload(server)
    assert (tmp_path / "pid").read_text() == f"{server.process.pid}\n"
    states = [
        Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        for thread in Path(f"/proc/{server.process.pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
    assert server.stop() == 0

    assert "Z" not in states
    lines = server.printed
    assert len({line for line in lines if line.startswith("descriptors")}) == 1
    assert [line for line in lines if line.startswith("variables")] == ["variables []"] * 6
    assert len(set(re.findall(r"listening on .*", server.log))) == 1
    assert not (tmp_path / "pid").exists()


def test_callbacks_and_clients_have_their_time(serve: Serve, tmp_path: Path) -> None:
    """What has begun is brought to its end; who connects meanwhile waits for the new code."""
    server = serve("--max-wait-time=60")
    with server.connect() as busy:
        busy.sendall(b"wait\n")
        server.wait_printed("waits")
        change(tmp_path, 1)
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "leaving: open connections have" in server.log, "it drains")
        with server.connect() as early:
            early.sendall(b"plain\n")
            busy.sendall(b"plain\n")
            (tmp_path / "go").touch()
            answers = busy.makefile("rb")
            assert [answers.readline(), answers.readline()] == [b"waited\n", b"0 1\n"]
            assert "executing anew" not in server.log
            busy.close()
            answers.close()

            assert early.makefile("rb").readline() == b"1 2\n"
    assert server.stop() == 0


def test_idle_connections_close_in_the_end(serve: Serve) -> None:
    """After max_wait_time; a callback that runs is waited for all the same."""
    server = serve("--max-wait-time=0.2")
    with server.connect() as idle, server.connect() as busy:
        idle.sendall(b"plain\n")
        lines = idle.makefile("rb")
        assert lines.readline() == b"0 1\n"
        busy.sendall(b"wait\n")
        server.wait_printed("waits")
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "leaving: open connections have" in server.log, "it drains")
        server.pause()
        assert "executing anew" not in server.log
        (server.out.parent / "go").touch()
        assert busy.makefile("rb").read() == b"waited\n"
        assert lines.read() == b""
    wait_ready(server, 2)
    assert server.stop() == 0
    assert "were cut" not in server.log


def test_broken_code_changes_nothing(serve: Serve, tmp_path: Path) -> None:
    """The old goes on; the log has the traceback from the app's file on."""
    server = serve()
    (tmp_path / "app.py").write_text("import is_not_there\n")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "No module named 'is_not_there'\n" in server.log, "it is logged")

    assert server.ask(b"plain\n") == b"0 1\n"
    assert (
        "no reload, the old code goes on: app cannot be loaded: ModuleNotFoundError" in server.log
    )
    assert f'Traceback (most recent call last):\n  File "{tmp_path}/app.py", line 1' in server.log
    change(tmp_path, 1)
    reload(server)
    assert server.ask(b"plain\n") == b"1 2\n"
    assert server.stop() == 0


def test_a_stop_during_the_drain(serve: Serve, tmp_path: Path) -> None:
    """It is a stop like any other: no new program, within max_wait_time, and code 1 for the cut."""
    server = serve("--max-wait-time=0.5")
    with server.connect() as client:
        client.sendall(b"wait\n")
        server.wait_printed("waits")
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "leaving: open connections have" in server.log, "it drains")
        assert server.stop() == 1
    assert "executing anew" not in server.log
    assert not (tmp_path / "pid").exists()


SLOW_PYTHON = """\
import os, time

if os.path.exists("slow") and open("pid").read().strip() == str(os.getpid()):
    open("starting", "a").close()
    while os.path.exists("slow"):
        time.sleep(0.01)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("where", ["starting", "importing"])
def test_a_stop_while_the_new_program_starts(
    serve: Serve, tmp_path: Path, signum: int, where: str
) -> None:
    """From its first moment on: exit code 0, no word, and no file stays."""
    path = tmp_path / "app.sock"
    server = serve("--bind=unix:app.sock")
    if where == "starting":
        (tmp_path / "sitecustomize.py").write_text(SLOW_PYTHON)
    (tmp_path / "slow").touch()
    server.process.send_signal(signal.SIGUSR1)
    wait_until((tmp_path / where).exists, "the new program has begun")
    assert path.exists()
    log = server.log
    server.process.send_signal(signum)
    (tmp_path / "slow").unlink()

    assert server.wait() == 0
    assert server.log == log
    assert not path.exists()
    assert not (tmp_path / "pid").exists()


def test_a_reload_while_the_new_program_starts(serve: Serve, tmp_path: Path) -> None:
    """It follows, for the code may be another one already."""
    server = serve()
    (tmp_path / "sitecustomize.py").write_text(SLOW_PYTHON)
    (tmp_path / "slow").touch()
    server.process.send_signal(signal.SIGUSR1)
    wait_until((tmp_path / "starting").exists, "the new program has begun")
    server.process.send_signal(signal.SIGUSR1)
    (tmp_path / "slow").unlink()
    wait_ready(server, 3)

    assert server.ask(b"plain\n") == b"0 1\n"
    assert server.stop() == 0


def test_a_unix_socket_stays(serve: Serve, tmp_path: Path) -> None:
    """Its file is the same one, and is gone in the end."""
    path = tmp_path / "app.sock"
    server = serve("--bind=unix:app.sock")
    before = path.stat().st_ino
    reload(server)

    assert path.stat().st_ino == before
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"plain\n")
        assert client.makefile("rb").readline() == b"0 1\n"
    assert server.stop() == 0
    assert not path.exists()


def test_an_interpreter_that_is_gone(serve: Serve, tmp_path: Path) -> None:
    """What cannot be executed is logged: exit code 1, no file stays."""
    link = tmp_path / "python"
    link.symlink_to(os.path.realpath(sys.executable))
    code = (
        "import sys, trioserver.__main__ as script\n"
        f"sys.executable = {str(link)!r}\n"
        "script.main()\n"
    )
    server = serve("app", "--bind=unix:app.sock", command=("-c", code))
    with server.connect() as client:
        client.sendall(b"wait\n")
        server.wait_printed("waits")
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "leaving: open connections have" in server.log, "it drains")
        link.unlink()
        (tmp_path / "go").touch()
        assert client.makefile("rb").readline() == b"waited\n"

    assert server.wait() == 1
    assert "the server failed" in server.log
    assert "FileNotFoundError: [Errno 2] No such file or directory" in server.log
    assert not (tmp_path / "app.sock").exists()
    assert not (tmp_path / "pid").exists()


def test_max_request(serve: Serve) -> None:
    """After so many frames, or up to a quarter fewer, the process reloads itself."""
    server = serve("--max-request=8")
    with server.connect() as client:
        client.sendall(b"plain\n" * 5)
        lines = client.makefile("rb")
        for _ in range(5):
            lines.readline()
        assert "max_request" not in server.log
        client.sendall(b"plain\n" * 3)
        for _ in range(3):
            lines.readline()
        wait_until(lambda: "reloading after max_request frames" in server.log, "it has enough")
        lines.close()
    wait_ready(server, 2)
    assert server.ask(b"plain\n") == b"0 2\n"
    assert server.stop() == 0


async def test_a_program_that_is_in_no_file(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What came from stdin is gone: the reload is refused, and the server goes on."""

    async def on_receive(stream: object, data: bytes) -> None: ...

    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    monkeypatch.setattr(sys, "orig_argv", ["python"])
    stopping = Stopping(1)
    app = load_app(types.SimpleNamespace(on_receive=on_receive))
    await Anew(app, Settings(), stopping).start()

    assert not stopping.is_requested
    (message,) = caplog.messages
    assert message.endswith(": the program is not in a file, so it cannot be executed anew")


def test_a_stop_in_the_last_moment_of_the_old_program(serve: Serve, tmp_path: Path) -> None:
    """One that another thread has taken from the kernel reaches the new program all the same."""
    (tmp_path / "killing.py").write_text(
        "import atexit, os, signal, trio, app\n"
        "from app import on_receive\n"
        "def kill():\n"
        "    if app.is_server() and not os.path.exists('killed'):\n"
        "        open('killed', 'a').close()\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "atexit.register(kill)\n"
        "async def on_worker_stop(server):\n"
        "    await trio.to_thread.run_sync(lambda: None)\n"  # Trio keeps the thread for a while
    )
    server = serve(command=("-m", "trioserver", "killing"))
    server.process.send_signal(signal.SIGUSR1)

    assert server.wait() == 0
    assert server.log.endswith("executing anew\n")
    assert (tmp_path / "killed").exists()
    assert not (tmp_path / "pid").exists()
