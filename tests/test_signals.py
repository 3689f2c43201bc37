"""What signals ask for: the table, and a real process that hears them."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing
from serving import ServerProcess, is_running, wait_until

from trioserver._signal_table import SignalTable
from trioserver._tasks._local import LocalTaskWorkers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trioserver._controls import Controls

    StartServer = Callable[..., ServerProcess]

APP = """\
import os, time

if os.path.exists("slow"):
    open("importing", "a").close()
    while os.path.exists("slow"):
        time.sleep(0.01)

async def on_receive(stream, data):
    await stream.server.task(None)

def on_task(task):
    print("runs", os.getpid(), flush=True)
    time.sleep(600)

async def on_finish(completion):
    print("finished", type(completion.error).__name__)
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with an app in ``app.py``."""
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


class Spy:
    """Keeps what a server is asked for, in a word each."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_stopping = False

    def shutdown(self) -> None:
        self.is_stopping = True
        self.asked.append("shutdown")

    def reload(self, *, only_task_workers: bool = False) -> None:
        if self.is_stopping:
            raise RuntimeError("the server is stopping")
        self.asked.append("reload task workers" if only_task_workers else "reload")

    def end_at_once(self) -> None:
        self.asked.append("end at once")

    @property
    def controls(self) -> Controls:
        return cast("Controls", self)


@pytest.mark.parametrize(
    ("signum", "asked"),
    [
        (signal.SIGTERM, "shutdown"),
        (signal.SIGINT, "shutdown"),
        (signal.SIGQUIT, "end at once"),
        (signal.SIGUSR1, "reload"),
        (signal.SIGHUP, "reload"),
        (signal.SIGUSR2, "reload task workers"),
    ],
)
async def test_each_has_its_meaning(signum: int, asked: str) -> None:
    """Each of them asks for one thing."""
    spy = Spy()
    table = SignalTable(spy.end_at_once)
    table.is_ready(spy.controls)
    table.hear(signum)

    assert spy.asked == [asked]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
async def test_before_it_is_ready_the_end_is_at_once(signum: int) -> None:
    """There is nothing yet that could be stopped gracefully."""
    spy = Spy()
    SignalTable(spy.end_at_once).hear(signum)

    assert spy.asked == ["end at once"]


async def test_reloads_wait_until_it_is_ready() -> None:
    """Those that came before the table was there as well, and they happen once."""
    spy = Spy()
    table = SignalTable(spy.end_at_once, [signal.SIGHUP, signal.SIGTERM])
    table.hear(signal.SIGUSR2)
    assert spy.asked == []

    table.is_ready(spy.controls)
    assert spy.asked == ["reload", "reload task workers"]
    table.is_ready(spy.controls)
    assert spy.asked == ["reload", "reload task workers"]


async def test_a_second_one_is_impatient(autojump_clock: trio.testing.MockClock) -> None:
    """It ends the server at once, unless it comes at the heels of the first, whose echo it is."""
    spy = Spy()
    table = SignalTable(spy.end_at_once)
    table.is_ready(spy.controls)
    table.hear(signal.SIGTERM)
    table.hear(signal.SIGINT)
    assert spy.asked == ["shutdown"]

    await trio.sleep(0.1)
    table.hear(signal.SIGTERM)
    assert spy.asked == ["shutdown", "end at once"]


async def test_quit_is_no_echo() -> None:
    """It says at once, and means it."""
    spy = Spy()
    table = SignalTable(spy.end_at_once)
    table.is_ready(spy.controls)
    table.hear(signal.SIGTERM)
    table.hear(signal.SIGQUIT)

    assert spy.asked == ["shutdown", "end at once"]


async def test_a_refused_reload_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """In one line, with its reason."""
    spy = Spy()
    table = SignalTable(spy.end_at_once)
    table.is_ready(spy.controls)
    table.hear(signal.SIGTERM)
    table.hear(signal.SIGUSR1)

    assert spy.asked == ["shutdown"]
    assert caplog.messages[-1] == "SIGUSR1: no reload: the server is stopping"


def test_quit_kills_what_runs(start_server: StartServer, here: Path) -> None:
    """The task worker goes with the server, which counts the task; nobody prints a traceback."""
    server = start_server("app", "--bind=127.0.0.1:0", "--task-worker-num=1")
    with server.connect() as client:
        client.sendall(b"x")
        wait_until(lambda: any(line.startswith("runs ") for line in server.printed), "it runs")
        worker = int(server.printed[-1].removeprefix("runs "))

        assert server.stop(signal.SIGQUIT) == 1
    assert not is_running(worker)
    assert "SIGQUIT: ending at once" in server.log
    assert "Traceback" not in server.log


def test_quit_of_an_idle_server(start_server: StartServer, here: Path) -> None:
    """Nothing is cut: exit code 0."""
    server = start_server("app", "--bind=127.0.0.1:0")

    assert server.stop(signal.SIGQUIT) == 0
    assert "Traceback" not in server.log


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP])
def test_an_early_reload_is_not_fatal(start_server: StartServer, here: Path, signum: int) -> None:
    """One that comes while the app is imported is heard when the server is ready."""
    (here / "slow").touch()
    server = start_server("app", "--bind=127.0.0.1:0", "--worker-num=1", wait=False)
    wait_until((here / "importing").exists, "the app is imported")
    server.process.send_signal(signum)
    (here / "slow").unlink()
    name = signal.Signals(signum).name
    wait_until(lambda: f" {name}: " in server.log, f"{name} is heard")

    assert server.log.index(": ready in ") < server.log.index(name)
    if signum == signal.SIGUSR2:
        assert f"{name}: no reload: task_worker_num is 0" in server.log
    else:
        wait_until(lambda: server.log.count(": ready in ") == 2, "it is ready once more")
    assert server.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("flags", [(), ("--worker-num=1",)], ids=["forked", "here"])
def test_a_start_is_ended_quietly(
    start_server: StartServer, here: Path, signum: int, flags: tuple[str, ...]
) -> None:
    """By whatever ends it, in whichever process the app is loaded; none is left."""
    (here / "slow").touch()
    server = start_server("app", "--bind=127.0.0.1:0", *flags, wait=False)
    wait_until((here / "importing").exists, "the app is imported")
    children = server.children
    assert bool(children) is not bool(flags)

    assert server.stop(signum) == 0
    assert server.log == ""
    assert not any(map(is_running, children))


@pytest.mark.skipif(not hasattr(LocalTaskWorkers, "reload"), reason="task workers do not reload")
def test_usr2_replaces_task_workers(start_server: StartServer, here: Path) -> None:
    """The process goes on, and its task workers are others."""
    server = start_server("app", "--bind=127.0.0.1:0", "--task-worker-num=2")
    before = set(server.children)
    server.process.send_signal(signal.SIGUSR2)
    wait_until(
        lambda: len(server.children) == 2 and not before & set(server.children), "all are replaced"
    )

    assert server.log.count(": ready in ") == 1
    assert server.stop() == 0


def test_run_gives_handlers_back(start_server: StartServer, here: Path) -> None:
    """Of all signals that it listens to."""
    (here / "script.py").write_text(
        "import signal, trioserver, app\n"
        "if __name__ == '__main__':\n"
        "    before = [signal.getsignal(number) for number in range(1, 20)]\n"
        "    trioserver.run(app, trioserver.Settings(bind='127.0.0.1:0'))\n"
        "    print(before == [signal.getsignal(number) for number in range(1, 20)])\n"
    )
    server = start_server(command=("script.py",))
    os.kill(server.process.pid, signal.SIGTERM)
    assert server.wait() == 0
    assert server.printed == ["True"]
