"""The order desk of Swoole's lesson on tasks: answer at once, work for two seconds elsewhere.

    python -m trioserver examples.orders:App
    python examples/client.py                     # from another shell

Three event workers handle connections, four task workers run orders for all of them, and a manager
watches over both: eight processes. The client has its answer within milliseconds, although every
order takes two seconds of a task worker's time, and the server hears of the end of each, also when
the client has left by then.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from trioserver import Settings

if TYPE_CHECKING:
    from trioserver import Completion, Connection, Task


class App:
    settings = Settings(bind="127.0.0.1:9504", worker_num=3, task_worker_num=4)

    async def on_connect(self, stream: Connection) -> None:
        print("new connection:", stream.id)

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        print("received new data:", data)
        order = {"message": "sss", "code": 200}
        task_id = await stream.server.task(order)
        await stream.send_all(json.dumps(order).encode())
        print("posted task:", task_id)

    def on_task(self, task: Task) -> object:
        time.sleep(2)  # it may block: this is a process of its own
        print("task", task.id, "worked on by task worker", task.worker_id)
        return task.data

    async def on_finish(self, completion: Completion) -> None:
        print("task", completion.task_id, "finished:", completion.result)

    async def on_close(self, stream: Connection) -> None:
        print("closed:", stream.id)
