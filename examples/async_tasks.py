r"""Tasks that wait instead of compute: each line names services, and all of them are asked at once.

    python -m trioserver examples.echo                       # something to ask, on port 9501
    python -m trioserver examples.async_tasks:App            # from another shell
    printf '127.0.0.1:9501 127.0.0.1:9501 127.0.0.1:1\n' | nc -N 127.0.0.1 9507

``on_task`` is a coroutine function, so one worker runs up to 50 tasks at a time. At its timeout a
task is cancelled, as by a cancel scope; its worker is killed only if that does not help.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import trio

from trioserver import EofFraming, Settings

if TYPE_CHECKING:
    from trioserver import Completion, Connection, Task


class App:
    framing = EofFraming(b"\n")
    settings = Settings(bind="127.0.0.1:9507", task_worker_num=1, task_concurrency=50)

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        await stream.task(data.decode().split(), timeout=5)

    async def on_task(self, task: Task) -> dict[str, str]:
        answers: dict[str, str] = {}

        async def ask(service: str) -> None:
            host, _, port = service.rpartition(":")
            try:
                async with await trio.open_tcp_stream(host, int(port)) as stream:
                    await stream.send_all(f"hello from task {task.id}".encode())
                    answers[service] = bytes(await stream.receive_some()).decode()
            except OSError as exc:
                answers[service] = f"no answer: {exc}"

        async with trio.open_nursery() as asking:
            for service in task.data:
                asking.start_soon(ask, service)
        return answers

    async def on_finish(self, completion: Completion) -> None:
        outcome = completion.result if completion.error is None else str(completion.error)
        await completion.stream.send_frame(json.dumps(outcome, sort_keys=True).encode())
