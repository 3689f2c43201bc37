"""What the server runs: it posts what clients ask for, and writes down what becomes of it.

The log has a line for everything that happens to a task, in whichever process, appended at once:

``accepted``  the post returned (``posted`` where a task posts); ``refused``, it raised
``run``       an attempt begins
``finished``  its completion came; ``returned``, to the caller of ``run_task``
              (``unreadable`` if the result did not survive the way: the server does not look)
``left``      that caller was cancelled, so nobody is to hear of it
``wrong``     something came back that is not what went out

No Trio at the top: task workers load this module.
"""

from __future__ import annotations

import json
import os
import resource
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from benchmarks.chaos import tasks
from trioserver import EofFraming

if TYPE_CHECKING:
    from trioserver import Completion, Connection, Server, Task, TaskError

LOG: Final = "CHAOS_LOG"
"""The environment variable with the path of the log."""


class App:
    """The app."""

    framing = EofFraming(b"\n")

    def __init__(self) -> None:
        self._log = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, what: str, key: str, *facts: object) -> None:
        """Append a line, whole: it is one small write."""
        line = json.dumps([what, key, time.monotonic(), *facts])
        os.write(self._log, line.encode() + b"\n")

    # In the event worker

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        request = json.loads(data)
        if "signal" in request:
            pid = stream.server.statistics().workers[request["worker"]].pid
            if pid is not None:
                with suppress(ProcessLookupError):  # it has died, and nobody has noticed yet
                    os.kill(pid, request["signal"])
        elif "statistics" in request:
            await stream.send_frame(json.dumps(_numbers(stream.server)).encode())
        else:
            for order in request["orders"]:
                await self._post(stream, order, request)

    async def _post(
        self, stream: Connection, order: dict[str, Any], request: dict[str, Any]
    ) -> None:
        import trio  # noqa: PLC0415  # not in task workers

        key, how, options = order["key"], request["how"], request["options"]
        order["stream"] = stream.id if how == "stream" else None
        try:
            if how == "stream":
                task_id = await stream.task(order, **options)
            elif how == "nowait":
                task_id = stream.server.task_nowait(order, **options)
            elif how == "server":
                task_id = await stream.server.task(order, **options)
            else:
                await self._run(stream.server, order, request)
                return
        except (trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            self.note("refused", key)
            return
        self.note("accepted", key, order["retries"])
        if request["cancel"]:
            stream.server.cancel(task_id)

    async def _run(self, server: Server, order: dict[str, Any], request: dict[str, Any]) -> None:
        """Wait for it, unless the caller, or its client, loses patience."""
        import trio  # noqa: PLC0415  # not in task workers

        from trioserver import TaskError  # noqa: PLC0415  # loads Trio's part of the package

        key = order["key"]
        kind = "left"
        try:
            with trio.move_on_after(request["patience"]):
                try:
                    result = await server.run_task(order, **request["options"])
                except TaskError as exc:
                    kind = _kind_of(exc)
                else:
                    kind = "completed"
                    self._check_result(order, result)
        finally:
            self.note("left" if kind == "left" else "returned", key, kind, order["retries"])

    async def on_finish(self, completion: Completion) -> None:
        import trio  # noqa: PLC0415  # not in task workers

        order, error, stream = completion.data, completion.error, completion.stream
        key = order["key"]
        self.note("finished", key, _kind_of(error), completion.attempt, completion.task_worker)
        if error is None:
            self._check_result(order, completion.result)
        else:
            self._check_error(order, error, completion.ran)
        if order["stream"] != (None if stream is None else stream.id):
            self.note("wrong", key, f"completes on {stream!r}, not on {order['stream']}")
        if stream is not None:
            with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
                await stream.send_frame(key.encode())

    async def on_progress(self, task_id: int, value: tuple[str, int]) -> None:
        self.note("progress", value[0])

    async def on_worker_stop(self, server: Server) -> None:
        self.note("ledger", "", _numbers(server))

    def _check_result(self, order: dict[str, Any], result: object) -> None:
        if result != order["key"]:
            self.note("wrong", order["key"], f"returns {result!r}")
        if order["do"] in tasks.NEVER_RETURNING:
            self.note("wrong", order["key"], f"{order['do']} returns")

    def _check_error(self, order: dict[str, Any], error: TaskError, ran: float) -> None:
        from trioserver import TaskTimeout, TaskWorkerCrashed  # noqa: PLC0415  # as above

        if isinstance(error, TaskWorkerCrashed):
            # Blows are signals; a worker that exits does so because of what it runs.
            code = error.exit_code
            if code is not None and code >= 0 and order["do"] != tasks.leave.__name__:
                self.note("wrong", order["key"], f"{order['do']} crashed, exit code {code}")
        elif isinstance(error, TaskTimeout) and error.begun and ran < error.seconds:
            self.note("wrong", order["key"], f"timed out after {ran} s of {error.seconds}")

    # In task workers

    def on_task_worker_start(self, worker_id: int) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # hundreds of them would fill the disk

    def on_task(self, task: Task) -> object:
        order = task.data
        self.note("run", order["key"], task.attempt, order["retries"])
        if order["do"] == tasks.POSTING:
            return self._post_more(task)
        return {**tasks.RETURNING, **tasks.NEVER_RETURNING}[order["do"]](task)

    def _post_more(self, task: Task) -> str:
        key: str = task.data["key"]
        for number, do in enumerate(task.data["then"]):
            # Each attempt posts tasks of its own.
            new = f"{key}/{task.attempt}.{number}"
            try:
                task.post({"key": new, "do": do, "retries": 0, "stream": None})
            except Exception as exc:  # noqa: BLE001  # WouldBlock, without importing Trio for it
                self.note("refused", new, repr(exc))
            else:
                self.note("posted", new, 0)
        return key


def _kind_of(error: TaskError | None) -> str:
    if error is None:
        return "completed"
    if str(error).startswith("the result cannot be unpickled"):
        return "unreadable"
    return type(error).__name__


def _numbers(server: Server) -> dict[str, Any]:
    import attrs  # noqa: PLC0415  # not in task workers

    numbers = attrs.asdict(server.statistics())
    numbers["is_balanced"] = server.statistics().is_balanced
    return numbers
