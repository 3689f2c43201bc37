"""What process lists call the processes, where setproctitle is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serving import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    StartServer = Callable[..., ServerProcess]

APP = """\
async def on_receive(stream, data): ...
def on_task(task): ...
async def on_finish(completion): ...
"""
SETPROCTITLE = """\
def setproctitle(title):
    with open("titles", "a") as file:
        print(title, file=file)
"""


def test_each_process_has_its_own(start_server: StartServer, tmp_path: Path) -> None:
    """The server with its app, task workers with their number."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "setproctitle.py").write_text(SETPROCTITLE)
    server = start_server("app", "--bind=127.0.0.1:0", "--task-worker-num=2")
    assert server.stop() == 0

    assert sorted((tmp_path / "titles").read_text().splitlines()) == [
        "trioserver: server (app)",
        "trioserver: task worker 0 (app)",
        "trioserver: task worker 1 (app)",
    ]
