"""A server that runs out of descriptors; with a real process and a real limit."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from serving import ServerProcess, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    StartServer = Callable[..., ServerProcess]

APP = """
import resource

async def on_connect(stream):
    print("open", stream.id, flush=True)

async def on_worker_start(server):
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))

async def on_receive(stream, data):
    await stream.send_all(data)
"""


def test_a_server_out_of_descriptors_recovers(start_server: StartServer, tmp_path: Path) -> None:
    """Clients wait, those who are in are served, and the others come in when some have left."""
    (tmp_path / "app.py").write_text(APP)
    server = start_server("app", "--bind", "127.0.0.1:0")
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(40)]
        wait_until(lambda: "cannot accept on" in server.log, "the warning")
        clients[0].sendall(b"still here")
        assert clients[0].recv(100) == b"still here"
        for client in clients[:20]:
            client.close()
        clients[-1].sendall(b"at last")
        assert clients[-1].recv(100) == b"at last"
        wait_until(lambda: "accepting on" in server.log, "the all-clear")
        assert "Traceback" not in server.log
    assert server.stop() == 0
