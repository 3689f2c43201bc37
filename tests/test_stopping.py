"""What a stop waits for, what it cuts, and what everybody hears of it; with real processes."""

from __future__ import annotations

import os
import signal
import textwrap
from typing import TYPE_CHECKING

import pytest
from serving import ServerProcess, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    StartServer = Callable[..., ServerProcess]

APP = """
import time, trio
from pathlib import Path
from trioserver import EofFraming

framing = EofFraming(b"\\n")

async def on_receive(stream, data):
    if data == b"slow callback":
        print("slow callback begins")
        try:
            await trio.sleep(60)
        finally:
            print("slow callback ends")
    elif data == b"answer":
        await stream.task("answer")
    else:
        print("posted", await stream.server.task(data.decode()))

def on_task(task):
    if task.data == "hang":
        print("hangs", flush=True)
        time.sleep(600)
    if task.data == "answer":
        while not Path("go").exists():
            time.sleep(0.01)
        print("answered")
    if task.data == "quick":
        time.sleep(0.05)
    return task.data

async def on_finish(completion):
    what = type(completion.error).__name__ if completion.error else completion.result
    print("finished", completion.task_id, what)
    if completion.stream:
        await completion.stream.send_frame(b"late answer")

async def on_close(stream):
    print("closed", stream.id, stream.close_reason)

async def on_worker_stop(server):
    print("worker stopped", len(server.connections))

def on_task_worker_stop(worker_id):
    print("task worker stopped", worker_id)
"""


@pytest.fixture
def app(tmp_path: Path) -> str:
    """The app's module in the directory that the server runs in."""
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    return "app"


def start(start_server: StartServer, app: str, *more: str) -> ServerProcess:
    return start_server(app, "--bind", "127.0.0.1:0", *more)


def test_queued_tasks_go_on_while_there_is_time(start_server: StartServer, app: str) -> None:
    """A stop runs what is queued, and its completions are delivered before on_worker_stop."""
    server = start(start_server, app, "--task-worker-num", "1")
    with server.connect() as client:
        client.sendall(b"quick\n" * 10)
        server.wait_printed("posted 9")

        assert server.stop() == 0

    finished = [line for line in server.printed if line.startswith("finished")]
    assert finished == [f"finished {number} quick" for number in range(10)]
    assert server.printed[-1] == "worker stopped 0"
    assert "task worker stopped 0" in server.printed
    assert "closed 1 server stopped" in server.printed


def test_a_client_is_answered_while_the_server_stops(
    start_server: StartServer, app: str, tmp_path: Path
) -> None:
    """Connections stay open for on_finish after reading has stopped."""
    server = start(start_server, app, "--task-worker-num", "1", "--max-wait-time", "60")
    with server.connect() as client:
        client.sendall(b"answer\nquick\n")
        server.wait_printed("posted 1")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "stopping, within" in server.log, "the stop begins")
        (tmp_path / "go").touch()

        assert client.makefile("rb").read() == b"late answer\n"
    assert server.wait() == 0


def test_what_hangs_is_cut_and_everybody_hears_of_it(start_server: StartServer, app: str) -> None:
    """At the deadline running and queued tasks end as TaskCancelled, and the exit code is 1."""
    server = start(start_server, app, "--task-worker-num", "1", "--max-wait-time", "0.2")
    with server.connect() as client:
        client.sendall(b"hang\nquick\nquick\n")
        server.wait_printed("hangs")
        server.wait_printed("posted 2")

        assert server.stop() == 1

    finished = {line for line in server.printed if line.startswith("finished")}
    assert finished == {f"finished {number} TaskCancelled" for number in range(3)}
    assert "3 tasks and callbacks were cut" in server.log
    assert "Traceback" not in server.log


def test_a_callback_is_cut_at_the_deadline(start_server: StartServer, app: str) -> None:
    """A callback that goes on for too long is cancelled, and its connection closed."""
    server = start(start_server, app, "--max-wait-time", "0.1", "--task-worker-num", "1")
    with server.connect() as client:
        client.sendall(b"slow callback\n")
        server.wait_printed("slow callback begins")

        assert server.stop() == 1

    assert server.printed[1:] == [
        "slow callback ends",
        "closed 1 server stopped",
        "task worker stopped 0",
        "worker stopped 0",
    ]


def test_a_second_signal_ends_at_once(start_server: StartServer, app: str) -> None:
    """It does not wait for max_wait_time."""
    server = start(start_server, app, "--task-worker-num", "1", "--max-wait-time", "600")
    with server.connect() as client:
        client.sendall(b"hang\n")
        server.wait_printed("hangs")
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: "stopping, within" in server.log, "the stop begins")

        # One that comes in the same moment counts as the first; a person tries once more.
        while server.process.poll() is None:
            server.process.send_signal(signal.SIGINT)
            server.pause()
        assert server.wait() == 1

    assert "ending at once" in server.log
    assert "1 tasks and callbacks were cut" in server.log
    assert "Traceback" not in server.log


def test_one_request_by_two_ways_is_one_request(start_server: StartServer, app: str) -> None:
    """A signal to the process and at once to its group, as ``timeout`` does it."""
    server = start(start_server, app, "--task-worker-num", "1")
    with server.connect() as client:
        client.sendall(b"quick\n" * 3)
        server.wait_printed("posted 2")
        server.process.send_signal(signal.SIGTERM)
        os.killpg(server.process.pid, signal.SIGTERM)
        assert server.wait() == 0

    assert "finished 2 quick" in server.printed
    assert "ending at once" not in server.log


def test_a_signal_during_the_start_ends_it_cleanly(
    start_server: StartServer, tmp_path: Path
) -> None:
    """Exit code 0 while the app is imported, and while task workers start."""
    (tmp_path / "slow.py").write_text(
        "import time, pathlib\n"
        "pathlib.Path('importing').touch()\n"
        "for _ in range(6000): time.sleep(0.01)\n"  # a signal just before a sleep waits for its end
        "async def on_receive(stream, data): ...\n"
    )
    (tmp_path / "slow_worker.py").write_text(
        "import time, pathlib\n"
        "async def on_receive(stream, data): ...\n"
        "async def on_finish(completion): ...\n"
        "def on_task(task): ...\n"
        "def on_task_worker_start(worker_id):\n"
        "    pathlib.Path('starting').touch()\n"
        "    time.sleep(60)\n"
    )
    for app, sign in (("slow", "importing"), ("slow_worker", "starting")):
        server = start_server(app, "--bind", "127.0.0.1:0", "--task-worker-num", "1", wait=False)
        wait_until((tmp_path / sign).exists, f"{app} is at it")

        assert server.stop(signal.SIGINT) == 0
        assert "Traceback" not in server.log
