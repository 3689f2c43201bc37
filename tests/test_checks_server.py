"""Checks of a whole server from outside, by the numbers of the list that they come from."""

from __future__ import annotations

import os
import signal
import socket
import struct
import textwrap
from typing import TYPE_CHECKING

import pytest
from serving import ServerProcess, children_of, is_running, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    StartServer = Callable[..., ServerProcess]

RECEIVES = "async def on_receive(stream, data): ...\n"
RUNS = "def on_task(task): ...\n"
HEARS = "async def on_finish(completion): ...\n"


@pytest.mark.parametrize(
    ("app", "missing"),
    [
        (RECEIVES + HEARS, "on_task"),
        (RECEIVES + RUNS, "on_finish"),
        (RECEIVES, "on_task and no on_finish"),
    ],
)
def test_tasks_without_a_callback(
    start_server: StartServer, tmp_path: Path, app: str, missing: str
) -> None:
    """C1, C2: The start fails with one line that names what is missing.

    Without on_finish, too, unlike Swoole: results that nobody hears of are a mistake.
    """
    (tmp_path / "app.py").write_text(app)
    server = start_server("app", "--bind=127.0.0.1:0", "--task-worker-num=2", wait=False)

    assert server.wait() == 2
    (line,) = server.log.splitlines()
    assert line == f"trioserver: error: task_worker_num is 2, but app has no {missing}"


APP = """
    import os, socket, time
    from pathlib import Path
    import trio
    from trioserver import EofFraming

    framing = EofFraming(b"\\n")
    streams = {}

    def descriptor_of(stream):
        for name in os.listdir("/proc/self/fd"):
            try:
                with socket.socket(fileno=os.dup(int(name))) as found:
                    if found.getpeername()[:2] == stream.peername[:2]:
                        return int(name)
            except (OSError, TypeError, ValueError):
                continue

    async def on_connect(stream):
        streams[stream.id] = stream
        print("connected", stream.id, descriptor_of(stream))

    async def on_receive(stream, data):
        kind, _, what = data.decode().partition(" ")
        if kind == "echo":
            await stream.send_frame(what.encode())
        else:
            poster = stream if kind == "own" else stream.server
            print("posted", await poster.task((stream.id, what)))

    def on_task(task):
        _, what = task.data
        if what != "quick":
            Path(f"{what}.begun").touch()
            while not Path(what).exists():
                time.sleep(0.005)
        return what

    async def on_finish(completion):
        how = type(completion.error).__name__ if completion.error else completion.result
        print("finished", completion.task_id, how)
        stream = completion.stream or streams[completion.data[0]]
        try:
            await stream.send_frame(f"finished {how}".encode())
        except trio.ClosedResourceError as exc:
            print("closed", completion.task_id, type(exc).__name__)

    async def on_close(stream):
        print("left", stream.id)
"""


@pytest.fixture
def app(tmp_path: Path) -> str:
    """The app's module in the directory that the server runs in."""
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))
    return "app"


def leave(client: socket.socket, how: str) -> None:
    """Close the connection, or have it reset."""
    if how == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_in_the_middle_of_its_tasks(
    start_server: StartServer, app: str, tmp_path: Path, how: str
) -> None:
    """C14: Its own tasks are cancelled, running and queued; the server's completes.

    To send to who has left raises `trio.ClosedResourceError`, Trio's ConnectionClosed.
    """
    server = start_server(app, "--bind=127.0.0.1:0", "--task-worker-num=2")
    before = server.children
    client = server.connect()
    client.sendall(b"own mine\nserver ours\nown queued\n")
    wait_until((tmp_path / "mine.begun").exists, "its own runs")
    wait_until((tmp_path / "ours.begun").exists, "the server's runs")
    server.wait_printed("posted 2")
    leave(client, how)
    server.wait_printed("left 1")
    server.wait_printed("finished 0 TaskCancelled")
    server.wait_printed("finished 2 TaskCancelled")
    # One was killed for it, and one goes on.
    wait_until(lambda: sum(map(is_running, before)) == 1, "its worker is gone")
    (tmp_path / "ours").touch()
    server.wait_printed("finished 1 ours")
    server.wait_printed("closed 1 ClosedResourceError")
    assert server.stop() == 0

    assert not (tmp_path / "queued.begun").exists()
    closed = [line for line in server.printed if line.startswith("closed")]
    assert sorted(closed) == [f"closed {number} ClosedResourceError" for number in range(3)]
    assert "Traceback" not in server.log


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_in_the_place_of_another(
    start_server: StartServer, app: str, tmp_path: Path, how: str
) -> None:
    """C14: It has the descriptor of one that left, and hears nothing of what that had posted."""
    server = start_server(app, "--bind=127.0.0.1:0", "--task-worker-num=1")
    client = server.connect()
    client.sendall(b"server ours\n")
    wait_until((tmp_path / "ours.begun").exists, "its task runs")
    leave(client, how)
    server.wait_printed("left 1")

    with server.connect() as other, other.makefile("rb") as answers:
        other.sendall(b"echo hello\n")
        assert answers.readline() == b"hello\n"
        lines = [line.split() for line in server.printed if line.startswith("connected")]
        assert [number for _, number, _ in lines] == ["1", "2"]
        assert lines[0][2] == lines[1][2] != "None"
        (tmp_path / "ours").touch()
        server.wait_printed("finished 0 ours")
        server.wait_printed("closed 0 ClosedResourceError")
        other.sendall(b"echo again\n")
        assert answers.readline() == b"again\n"
        other.shutdown(socket.SHUT_WR)
        assert answers.read() == b""
    assert server.stop() == 0


@pytest.mark.parametrize("to", ["the server", "its group", "every process"])
def test_a_stop_with_tasks_that_run_and_wait(
    start_server: StartServer, app: str, tmp_path: Path, to: str
) -> None:
    """C15, C17: What ends in max_wait_time is answered; the rest is cancelled, and heard of.

    It makes no difference whether SIGTERM comes to the server, to its process group, or to every
    process of it; workers have sessions of their own.
    """
    server = start_server(app, "--bind=127.0.0.1:0", "--task-worker-num=3", "--max-wait-time=1.5")
    children = server.children
    with server.connect() as client:
        client.sendall(b"own first\nserver second\nown third\n" + b"server queued\n" * 10)
        for name in ("first", "second", "third"):
            wait_until((tmp_path / f"{name}.begun").exists, f"{name} runs")
        server.wait_printed("posted 12")
        if to == "the server":
            server.process.send_signal(signal.SIGTERM)
        elif to == "its group":
            os.killpg(server.process.pid, signal.SIGTERM)
        else:
            for pid in [*children_of(server.process.pid), server.process.pid]:
                os.kill(pid, signal.SIGTERM)
        wait_until(lambda: "stopping, within" in server.log, "the stop begins")
        (tmp_path / "first").touch()
        with client.makefile("rb") as file:
            answers = file.read().splitlines()
        assert server.wait() == 1

    assert answers[0] == b"finished first"
    assert sorted(answers[1:]) == [b"finished TaskCancelled"] * 12
    finished = [line for line in server.printed if line.startswith("finished")]
    assert finished[0] == "finished 0 first"
    assert sorted(finished[1:]) == sorted(f"finished {n} TaskCancelled" for n in range(1, 13))
    assert "12 tasks and callbacks were cut" in server.log
    assert "Traceback" not in server.log
    assert "Broken" not in server.log
    wait_until(lambda: not any(map(is_running, children)), "no child is left")


def test_a_second_term_ends_at_once(start_server: StartServer, app: str, tmp_path: Path) -> None:
    """C15: With hours of max_wait_time left; no child is left, and no traceback printed."""
    server = start_server(app, "--bind=127.0.0.1:0", "--task-worker-num=2", "--max-wait-time=9999")
    children = server.children
    with server.connect() as client:
        client.sendall(b"server hangs\nown hangs\nown queued\n")
        server.wait_printed("posted 2")
        wait_until((tmp_path / "hangs.begun").exists, "a task hangs")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "stopping, within" in server.log, "the stop begins")
        # One that comes in the same moment counts as the first.
        while server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
            server.pause()

    assert server.wait() == 1
    assert "ending at once" in server.log
    assert "Traceback" not in server.log
    wait_until(lambda: not any(map(is_running, children)), "no child is left")
