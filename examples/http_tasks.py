r"""Tasks in a program with a server of its own: HTTP by Hypercorn, orders that take their time.

    pip install 'hypercorn[trio]'
    python examples/http_tasks.py [HOST:PORT]
    curl -d tea http://127.0.0.1:8000/orders                 # from another shell: {"id": 0}
    curl http://127.0.0.1:8000/orders/0                      # accepted; two seconds later done

A POST is answered at once. After Ctrl-C the orders that were accepted are still worked on,
for 30 seconds at the most.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import trio

from trioserver import Settings, TaskPool, open_task_pool

if TYPE_CHECKING:
    from trioserver import Completion, Task


class Shop:
    """`on_task` runs in task workers, the rest in the process that speaks HTTP."""

    pool: TaskPool

    def __init__(self) -> None:
        self.orders: dict[str, dict[str, object]] = {}

    def on_task(self, task: Task) -> object:
        time.sleep(2)  # it may block: this is a process of its own
        return f"{task.data} from task worker {task.worker_id}"

    async def on_finish(self, completion: Completion) -> None:
        outcome = completion.result if completion.error is None else str(completion.error)
        self.orders[f"/orders/{completion.task_id}"] = {"state": "done", "outcome": outcome}
        print("order", completion.task_id, "is done:", outcome, flush=True)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # as ASGI has it
        while scope["type"] == "lifespan":  # until it is cancelled
            await send({"type": (await receive())["type"] + ".complete"})
        status, answer = 404, self.orders.get(scope["path"])
        if answer is not None:
            status = 200
        elif (scope["method"], scope["path"]) == ("POST", "/orders"):
            order = (await receive())["body"].decode(errors="replace")  # short, so in one part
            task_id = await self.pool.task(order)
            # Where the queue was full until now, it may have ended by now.
            self.orders.setdefault(f"/orders/{task_id}", {"state": "accepted"})
            status, answer = 202, {"id": task_id}
        await send({"type": "http.response.start", "status": status})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode() + b"\n"})


shop = Shop()


async def main(bind: str) -> None:
    import hypercorn.trio  # noqa: PLC0415  # task workers load this file, too, and need no HTTP

    config = hypercorn.Config.from_mapping(bind=[bind])
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:

        async def stopped() -> None:
            await anext(signals)

        settings = Settings(task_worker_num=2, max_wait_time=30)
        async with open_task_pool(shop, settings) as shop.pool:
            await hypercorn.trio.serve(shop, config, shutdown_trigger=stopped)


if __name__ == "__main__":
    trio.run(main, sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8000")
