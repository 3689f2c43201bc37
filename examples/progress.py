r"""A long task whose client watches: each line is a number of steps, and asks for as many.

    python -m trioserver examples.progress:App
    printf '20\n' | nc -N 127.0.0.1 9506

Kill the task worker meanwhile (`kill -9`): the steps begin again, for the task has retries left.
A client that leaves takes its task along, and a task that takes a minute is ended.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from trioserver import EofFraming, Settings

if TYPE_CHECKING:
    from trioserver import Completion, Connection, Task


class App:
    framing = EofFraming(b"\n")
    settings = Settings(bind="127.0.0.1:9506", task_worker_num=2)

    def __init__(self) -> None:
        self.clients: dict[int, Connection] = {}

    async def on_connect(self, stream: Connection) -> None:
        self.clients[stream.id] = stream

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        await stream.task((stream.id, int(data)), timeout=60, retries=2)

    def on_task(self, task: Task) -> object:
        client, steps = task.data
        for step in range(1, steps + 1):
            time.sleep(0.1)
            task.progress((client, f"attempt {task.attempt}: {step} of {steps}"))
        return f"done by task worker {task.worker_id}"

    async def on_progress(self, task_id: int, value: tuple[int, str]) -> None:
        client, text = value
        if client in self.clients:
            await self.clients[client].send_frame(b"task %d, %b" % (task_id, text.encode()))

    async def on_finish(self, completion: Completion) -> None:
        outcome = completion.error or completion.result
        await completion.stream.send_frame(
            b"task %d %b" % (completion.task_id, str(outcome).encode())
        )

    async def on_close(self, stream: Connection) -> None:
        del self.clients[stream.id]
