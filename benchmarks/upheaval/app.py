"""What the server runs: it answers with whom it is, and writes down what becomes of tasks.

Each process has a log of its own, with a line for everything, appended at once, so that a kill
cannot take it back: what, who (the process), and then

``started``    an event worker begins: its number, marker and time
``connected``  the port of the client, the id of the connection, time
``got``        a request begins to be handled: its token
``accepted``   its task was posted: token, retries, id
``asked``      its task is waited for, by the caller of ``run_task``: token, retries; ``returned``
               says how that ended
``posted``     a task has posted another one: token, retries, id; "who" is who will hear of it
``run``        an attempt begins: token, attempt, id; "who" as above
``ended``      the completion came: token, kind

No Trio at the top: task workers load this module.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trioserver import EofFraming

if TYPE_CHECKING:
    from trioserver import Completion, Connection, Server, Task, TaskError

LOGS: Final = "UPHEAVAL_LOGS"
"""The environment variable with the directory of the logs."""


class App:
    """The app; what is served is a class of its own with another `marker` (see `_upheavals`)."""

    framing = EofFraming(b"\n")
    marker = 0
    """Which code this is."""

    def __init__(self) -> None:
        path = Path(os.environ[LOGS], str(os.getpid()))
        self._log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, what: str, who: int, *facts: object) -> None:
        """Append a line, whole: it is one small write."""
        os.write(self._log, json.dumps([what, who, *facts]).encode() + b"\n")

    # In an event worker

    async def on_worker_start(self, server: Server) -> None:
        self.note("started", os.getpid(), server.worker_id, self.marker, time.monotonic())

    async def on_connect(self, stream: Connection) -> None:
        _, port = stream.peername
        self.note("connected", os.getpid(), port, stream.id, time.monotonic())

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        request = json.loads(data)
        if request["do"] == "statistics":
            await self._answer(stream, request, self._numbers(stream.server))
            return
        self.note("got", os.getpid(), request["token"])
        await getattr(self, "_" + request["do"])(stream, request)

    async def _reply(self, stream: Connection, request: dict[str, Any]) -> None:
        await self._answer(stream, request)

    async def _post(self, stream: Connection, request: dict[str, Any]) -> None:
        """A task of the server's; the client does not wait for it."""
        task_id = await stream.server.task(self._order(request), retries=request["retries"])
        self.note("accepted", os.getpid(), request["token"], request["retries"], task_id)
        await self._answer(stream, request)

    async def _own(self, stream: Connection, request: dict[str, Any]) -> None:
        """A task of the connection's, whose end is the answer."""
        task_id = await stream.task(self._order(request), retries=request["retries"])
        self.note("accepted", os.getpid(), request["token"], request["retries"], task_id)

    async def _run(self, stream: Connection, request: dict[str, Any]) -> None:
        from trioserver import TaskError  # noqa: PLC0415  # loads Trio's part of the package

        self.note("asked", os.getpid(), request["token"], request["retries"])
        kind = "left"
        try:
            await stream.server.run_task(self._order(request), retries=request["retries"])
            kind = "completed"
        except TaskError as exc:
            kind = _kind_of(exc)
        finally:
            self.note("returned", os.getpid(), request["token"], kind)
        await self._answer(stream, request)

    def _order(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"who": os.getpid(), "request": request}

    async def on_finish(self, completion: Completion) -> None:
        request, stream = completion.data["request"], completion.stream
        self.note("ended", os.getpid(), request["token"], _kind_of(completion.error))
        if stream is not None:
            import trio  # noqa: PLC0415  # not in task workers

            with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
                await self._answer(stream, request)

    async def _answer(
        self, stream: Connection, request: dict[str, Any], numbers: object = None
    ) -> None:
        answer = {
            "token": request["token"],
            "marker": self.marker,
            "pid": os.getpid(),
            "worker": stream.server.worker_id,
            "numbers": numbers,
            "padding": "x" * request["size"],
        }
        await stream.send_frame(json.dumps(answer).encode())

    def _numbers(self, server: Server) -> dict[str, Any]:
        import attrs  # noqa: PLC0415  # not in task workers

        return attrs.asdict(server.statistics())

    # In task workers

    def on_task(self, task: Task) -> object:
        who, request = task.data["who"], task.data["request"]
        self.note("run", who, request["token"], task.attempt, task.id)
        time.sleep(request["seconds"])
        if request["posts"]:
            token = f"{request['token']}/{task.attempt}"
            more = {**request, "token": token, "posts": False, "retries": 0}
            task_id = task.post({"who": who, "request": more})
            self.note("posted", who, token, 0, task_id)
        return None


def _kind_of(error: TaskError | None) -> str:
    return "completed" if error is None else type(error).__name__
