"""The main job on real input: the README's example, its client, and clients we did not write."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from serving import PATIENCE, ROOT, ServerProcess, is_running, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    StartServer = Callable[..., ServerProcess]

ANSWER = b'{"message": "sss", "code": 200}'
ORDERS = ("examples.orders:App", "--bind", "127.0.0.1:0")


def test_the_client_is_answered_at_once_and_the_task_finishes_later(
    start_server: StartServer,
) -> None:
    """The answer comes while the task still sleeps; the prints come in Swoole's order."""
    server = start_server(*ORDERS)

    client = subprocess.run(
        [sys.executable, f"{ROOT}/examples/client.py", str(server.port)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    server.wait_printed("closed: 1")
    wait_until(lambda: len(server.printed) == 6, "all is printed")

    assert client.stdout == f"{ANSWER.decode()}\n"
    assert server.printed[:3] == [
        "new connection: 1",
        "received new data: b'hello world\\n'",
        "posted task: 0",
    ]
    rest = [line for line in server.printed[3:] if line != "closed: 1"]
    assert re.fullmatch(r"task 0 worked on by task worker [0-3]", rest[0])
    assert rest[1] == "task 0 finished: {'message': 'sss', 'code': 200}"


def test_a_task_finishes_after_its_client_has_left(start_server: StartServer) -> None:
    """A task of the server's outlives the connection that asked for it."""
    server = start_server(*ORDERS)

    assert server.ask(b"x") == ANSWER

    server.wait_printed("task 0 finished: {'message': 'sss', 'code': 200}")
    assert server.printed.index("closed: 1") < len(server.printed) - 1
    assert server.stop() == 0


def test_processes_are_the_server_and_its_task_workers(start_server: StartServer) -> None:
    """Three event workers and four task workers, all children of the manager, and nothing else."""
    server = start_server(*ORDERS)

    assert len(server.children) == 3 + 4
    assert server.stop() == 0
    assert not any(map(is_running, server._children))


@pytest.mark.skipif(shutil.which("nc") is None, reason="nc is not installed")
def test_netcat_gets_its_answer_after_half_closing(start_server: StartServer) -> None:
    """``printf | nc`` has sent its end of file by the time that the answer is made."""
    server = start_server(*ORDERS)

    answer = subprocess.run(
        ["nc", "-N", "127.0.0.1", str(server.port)],
        input=b"hello\n",
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )

    assert answer.stdout == ANSWER


def test_a_half_closed_client_gets_its_answer(start_server: StartServer) -> None:
    """At the end of file, whole frames are still handled and answered."""
    server = start_server(*ORDERS)

    with server.connect() as client:
        client.sendall(b"hello\n")
        client.shutdown(1)
        answer = client.makefile("rb").read()

    assert answer == ANSWER


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_cleanly(start_server: StartServer, signum: int) -> None:
    """Exit code 0, no traceback, no process left, the port free."""
    server = start_server(*ORDERS)
    port = server.port
    idle_client = server.connect()
    # Answered, it is surely accepted: a stop resets who still waits for that.
    idle_client.sendall(b"hello\n")
    assert idle_client.recv(65536) == ANSWER

    assert server.stop(signum) == 0
    assert "Traceback" not in server.log
    assert idle_client.recv(1) == b""
    idle_client.close()
    start_server("examples.orders:App", "--bind", f"127.0.0.1:{port}")


def test_a_signal_to_the_whole_group_stops_cleanly(start_server: StartServer) -> None:
    """As Ctrl-C in a terminal or a supervisor's group-wide TERM does it; a task still ends."""
    server = start_server(*ORDERS)
    server.ask(b"x")

    subprocess.run(["kill", "-TERM", "--", f"-{server.process.pid}"], check=True)

    assert server.wait() == 0
    assert "Traceback" not in server.log
    assert "task 0 finished: {'message': 'sss', 'code': 200}" in server.printed


def test_a_killed_server_takes_its_workers_along(start_server: StartServer) -> None:
    """After ``kill -9`` busy and idle task workers are gone, and the port is free at once."""
    server = start_server(*ORDERS)
    port = server.port
    server.ask(b"x")
    workers = server.children
    assert len(workers) == 3 + 4

    server.process.kill()
    server.wait()
    began = time.monotonic()
    wait_until(lambda: not any(map(is_running, workers)), "workers are gone")

    assert time.monotonic() - began < 2  # busy ones had two seconds of sleep before them
    start_server("examples.orders:App", "--bind", f"127.0.0.1:{port}")


def test_whatever_a_callback_raises_costs_its_connection_only(
    start_server: StartServer, tmp_path: Path
) -> None:
    """Also what would end a program: each client is cut off, and the next one is served."""
    (tmp_path / "app.py").write_text(
        "async def on_receive(stream, data):\n"
        "    if data != b'echo':\n"
        "        raise eval(data)\n"
        "    await stream.send_all(data)\n"
        "async def on_close(stream):\n"
        "    print(stream.close_reason)\n"
    )
    server = start_server("app", "--bind", "127.0.0.1:0")
    raised = ["ValueError", "SystemExit", "KeyboardInterrupt", "GeneratorExit"]

    for name in [*raised, "BaseExceptionGroup('', [KeyboardInterrupt()])"]:
        assert server.ask(name.encode()) == b""
    assert server.ask(b"echo") == b"echo"

    for name in [*raised, "BaseExceptionGroup"]:
        server.wait_printed(f"on_receive raised {name}")
    assert server.log.count("on_receive of connection") == 5
    assert server.stop() == 0
