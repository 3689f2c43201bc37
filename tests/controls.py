"""A server as its control socket sees it, and clients of that socket."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio
from serving import PATIENCE

from trioserver._control import open_control
from trioserver._statistics import EventWorkerStatistics, ServerStatistics
from trioserver._tasks._statistics import RunningTask, TaskWorkerStatistics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

STATISTICS = ServerStatistics(
    pid=100,
    uptime=3700.5,
    connections=5,
    is_reloading=False,
    is_stopping=False,
    event_workers=(
        EventWorkerStatistics(
            id=0, pid=101, state="running", connections=5, rss=3 << 20, uptime=61.0
        ),
        EventWorkerStatistics(id=1, pid=None, state="dead", connections=0, rss=None, uptime=0.5),
    ),
    workers=(
        TaskWorkerStatistics(
            id=0,
            pid=102,
            state="busy",
            tasks_done=7,
            rss=1 << 20,
            running=(RunningTask(9, 2, 1.5),),
        ),
        TaskWorkerStatistics(id=1, pid=None, state="dead", tasks_done=0, rss=None, running=()),
    ),
    posted=10,
    queued=2,
    running=1,
    completed=7,
    dead_workers=1,
    oldest_queued=0.25,
)


class FakeControls:
    """Does as it is told, and remembers it."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.now = STATISTICS
        self.raises: BaseException | None = None
        self.shown = '  File "app.py", line 3 in on_task'
        self.tasks = {9}

    def statistics(self) -> ServerStatistics:
        if self.raises is not None:
            raise self.raises
        return self.now

    def reload(self, *, only_task_workers: bool = False) -> None:
        if self.now.is_stopping:
            raise RuntimeError("the server is stopping: it is not reloaded")
        self.heard.append(("reload", only_task_workers))

    def shutdown(self) -> None:
        self.heard.append("shutdown")
        self.now = attrs.evolve(self.now, is_stopping=True)

    def cancel(self, task_id: int) -> bool:
        self.heard.append(("cancel", task_id))
        return task_id in self.tasks

    async def scale(self, task_worker_num: int) -> None:
        await trio.lowlevel.checkpoint()
        if not task_worker_num:
            raise ValueError("task_worker_num must be at least 1: 0")
        self.heard.append(("scale", task_worker_num))

    async def stack(self, task_id: int) -> str:
        await trio.lowlevel.checkpoint()
        if task_id not in self.tasks:
            raise KeyError(f"no task {task_id} is running")
        return self.shown


class ControlClient:
    """One connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._received = b""

    async def ask(self, command: object, **arguments: object) -> dict[str, Any]:
        """Send a request, and receive its answer."""
        return await self.say(json.dumps({"command": command, **arguments}).encode() + b"\n")

    async def say(self, data: bytes) -> dict[str, Any]:
        """Send bytes, and receive an answer."""
        await self.stream.send_all(data)
        return await self.hear()

    async def hear(self) -> dict[str, Any]:
        """The next answer."""
        while b"\n" not in self._received:
            data = await self.stream.receive_some()
            assert data, "the connection was closed"
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def is_closed(self) -> bool:
        """Wait for the end; whether nothing more came before it."""
        try:
            return not self._received and not await self.stream.receive_some()
        except trio.BrokenResourceError:  # closed with something unread
            return True


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[ControlClient]:
    """A client of the socket at ``path``."""
    async with await trio.open_unix_socket(path) as stream:
        yield ControlClient(stream)


@asynccontextmanager
async def open_controlled(path: Path) -> AsyncIterator[FakeControls]:
    """A control socket at ``path``."""
    controls = FakeControls()
    with trio.fail_after(2 * PATIENCE):
        async with open_control(f"unix:{path}", controls):
            yield controls
