"""Calls over length-prefixed JSON; each is computed in a task worker, and awaited by its client.

    python -m trioserver examples.length_rpc:Calculator
    python examples/length_rpc.py [PORT]          # from another shell: asks for 2 ** 100

A client may send its next call before the last is answered; answers come in the order of the calls.
"""

from __future__ import annotations

import json
import math
import operator
import sys
from typing import TYPE_CHECKING

import trio

from trioserver import LengthFraming, Settings, TaskFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioserver import Completion, Connection, Task

FUNCTIONS: dict[str, Callable[..., object]] = {
    "add": operator.add,
    "pow": operator.pow,
    "factorial": math.factorial,
}


class Calculator:
    framing = LengthFraming("N")
    settings = Settings(bind="127.0.0.1:9502", task_worker_num=2)

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        try:
            answer = {"result": await stream.server.run_task(json.loads(data))}
        except (TaskFailed, ValueError) as exc:
            answer = {"error": str(exc).splitlines()[0]}
        await stream.send_frame(json.dumps(answer).encode())

    def on_task(self, task: Task) -> object:
        name, *args = task.data
        return FUNCTIONS[name](*args)

    async def on_finish(self, completion: Completion) -> None:
        """Never called: `run_task` hears of its tasks itself."""


async def main(port: int) -> None:
    from trioserver.testing import Client  # noqa: PLC0415  # the server needs no client

    async with await Client.connect(f"127.0.0.1:{port}", framing=Calculator.framing) as client:
        await client.send(json.dumps(["pow", 2, 100]).encode())
        print(json.loads(await client.receive())["result"])


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 9502)
