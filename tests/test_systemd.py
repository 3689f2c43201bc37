"""Sockets that systemd passes, and what it is told."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio
from serving import PATIENCE, ROOT, ServerProcess, wait_until

from trioserver._notifying import Notifier
from trioserver.testing import Client

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio.testing import MockClock

    StartServer = Callable[..., ServerProcess]

ECHO = """\
import os

async def on_worker_start(server):
    print([name for name in os.environ if name.startswith("LISTEN_")])

async def on_receive(stream, data):
    await stream.send_all(data)
"""
# Opens what its first argument says, passes it as systemd would, and executes the server.
PASS = """\
import fcntl, os, socket, sys

def opened(kind):
    if kind == "tcp":
        return socket.create_server(("127.0.0.1", 0))
    if kind == "datagram":
        return socket.socket(type=socket.SOCK_DGRAM)
    if kind == "silent":
        return socket.socket()
    if kind == "file":
        return open(os.devnull)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(kind)
    sock.listen()
    return sock

passed = [one.partition("=")[::2] for one in sys.argv[2].split()]
opened = [opened(kind) for _, kind in passed]
fds = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, 100) for one in opened]
for one in opened:
    one.close()
for number, fd in enumerate(fds, 3):
    os.dup2(fd, number)
    os.close(fd)
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[1]))
os.environ["LISTEN_FDS"] = str(len(passed))
os.environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in passed)
os.execv(sys.executable, [sys.executable, "-m", "trioserver", "echo", *sys.argv[3:]])
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with an app in ``echo.py``."""
    (tmp_path / "echo.py").write_text(ECHO)
    (tmp_path / "pass.py").write_text(PASS)
    return tmp_path


def passing(*sockets: str, to_another: bool = False) -> tuple[str, ...]:
    """The command that passes ``name=kind`` for each."""
    return ("pass.py", str(int(to_another)), " ".join(sockets))


def test_all_that_is_passed(start_server: StartServer, here: Path) -> None:
    """``fd://`` stands for it; children do not see the variables."""
    server = start_server("--bind=fd://", command=passing("web=tcp", "admin=admin.sock"))
    assert server.ask(b"hello") == b"hello"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(here / "admin.sock"))
        client.sendall(b"hello")
        assert client.recv(5) == b"hello"

    assert server.printed == ["[]"]
    assert f"listening on 127.0.0.1:{server.port}\n" in server.log
    assert "listening on unix:admin.sock\n" in server.log
    assert server.stop() == 0
    assert (here / "admin.sock").exists()  # systemd's own


@pytest.mark.parametrize("name", ["fd://4", "fd://web"])
def test_one_of_them(start_server: StartServer, here: Path, name: str) -> None:
    """By its number or its name, beside other addresses."""
    command = passing("other=other.sock", "web=tcp")
    server = start_server(f"--bind={name}", "--bind=unix:own.sock", command=command)

    assert server.ask(b"hello") == b"hello"
    assert "other.sock" not in server.log
    assert server.stop() == 0


def test_it_stays_through_a_reload(start_server: StartServer, here: Path) -> None:
    """The program that takes over has the same socket."""
    server = start_server("--bind=fd://web", "--bind=fd://3", command=passing("web=tcp"))
    server.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: server.log.count(": ready in ") == 2, "it is ready again")

    assert server.ask(b"hello") == b"hello"
    assert server.log.count(f"listening on 127.0.0.1:{server.port}\n") == 4
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("command", "bind", "problem"),
    [
        (passing("web=tcp"), "fd://admin", "no such socket was passed (LISTEN_FDS)"),
        (passing("web=tcp"), "fd://4", "no such socket was passed (LISTEN_FDS)"),
        (passing(), "fd://", "no such socket was passed (LISTEN_FDS)"),
        (
            passing("web=tcp", to_another=True),
            "fd://web",
            "no such socket was passed (LISTEN_FDS)",
        ),
        (passing("x=file"), "fd://x", "descriptor 3 is not a socket"),
        (passing("x=datagram"), "fd://x", "descriptor 3 is not a listening stream socket"),
        (passing("x=silent"), "fd://", "descriptor 3 is not a listening stream socket"),
    ],
)
def test_what_cannot_be_served(
    here: Path, command: tuple[str, ...], bind: str, problem: str
) -> None:
    """The start is refused, and says why."""
    done = subprocess.run(
        [sys.executable, *command, f"--bind={bind}"],
        cwd=here,
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"trioserver: error: {bind}: {problem}\n"


async def test_nobody_connects_to_a_descriptor() -> None:
    """It is the server's own, and no address for clients."""
    with pytest.raises(ValueError, match=r"^nobody can connect to 'fd://3'$"):
        await Client.connect("fd://3")


class Listening:
    """The service manager's end."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address)
        self.sock.settimeout(PATIENCE)

    def hear(self) -> dict[str, str]:
        """The next message, without the status for people."""
        lines = self.sock.recv(4096).decode().splitlines()
        said = dict(line.split("=", 1) for line in lines)
        said.pop("STATUS", None)
        return said


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_what_it_is_told(start_server: StartServer, here: Path, kind: str) -> None:
    """When the server is ready, reloads, has reloaded, and stops."""
    abstract = f"trioserver-{os.getpid()}"
    address = str(here / "notify") if kind == "path" else f"@{abstract}"
    manager = Listening(address if kind == "path" else f"\0{abstract}")
    with manager.sock:
        server = start_server("echo", "--bind=127.0.0.1:0", env={"NOTIFY_SOCKET": address})
        ready = {"READY": "1", "MAINPID": str(server.process.pid)}
        assert manager.hear() == ready

        server.process.send_signal(signal.SIGUSR1)
        reloading = manager.hear()
        assert reloading.keys() == {"RELOADING", "MONOTONIC_USEC"}
        assert int(reloading["MONOTONIC_USEC"]) > 0
        assert manager.hear() == ready  # of the new program

        (here / "echo.py").write_text("broken(")
        server.process.send_signal(signal.SIGUSR1)
        assert "RELOADING" in manager.hear()
        assert manager.hear() == ready  # as it was

        assert server.stop() == 0
        assert manager.hear() == {"STOPPING": "1"}
        manager.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.hear()


def test_nobody_listens(start_server: StartServer, here: Path) -> None:
    """That costs a line for those who debug."""
    server = start_server(
        "echo", "--bind=127.0.0.1:0", "--log-level=debug", env={"NOTIFY_SOCKET": "/no/where"}
    )
    assert "DEBUG trioserver.server: NOTIFY_SOCKET /no/where: " in server.log
    assert server.stop() == 0


async def test_the_watchdog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """It hears from the event loop twice in its time."""
    manager = Listening(str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    with manager.sock:
        with trio.move_on_after(4):
            await Notifier(str(tmp_path / "notify")).run_watchdog()
        assert [manager.hear() for _ in range(3)] == [{"WATCHDOG": "1"}] * 3
        manager.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.hear()


@pytest.mark.parametrize(("usec", "pid"), [("", ""), ("0", ""), ("soon", ""), ("3000000", "1")])
async def test_no_watchdog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usec: str, pid: str
) -> None:
    """Where nobody asked for it, or it is for another process, nothing is sent."""
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    manager = Listening(str(tmp_path / "notify"))
    with manager.sock:
        await Notifier(str(tmp_path / "notify")).run_watchdog()
        manager.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.hear()
