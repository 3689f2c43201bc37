"""Apps that the tests of the server serve; importable by name, as task workers need it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from trioserver import EofFraming

if TYPE_CHECKING:
    from trioserver import Completion, Connection, Server, Task


class Tasks:
    """Does what a line says, and keeps what it hears."""

    framing = EofFraming(b"\n")

    def __init__(self) -> None:
        self.completions: list[Completion] = []
        self.heard = trio.Event()
        self.streams: list[Connection] = []
        self.server: Server

    async def on_worker_start(self, server: Server) -> None:
        self.server = server

    async def on_connect(self, stream: Connection) -> None:
        self.streams.append(stream)

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        verb, _, argument = data.decode().partition(" ")
        if verb == "own":
            await stream.send_frame(b"%d" % await stream.task(argument))
        elif verb == "post":
            await stream.send_frame(b"%d" % await stream.server.task(argument))
        elif verb == "run":
            result = await stream.server.run_task(argument)
            await stream.send_frame(str(result).encode())

    def on_task(self, task: Task) -> object:
        verb, _, argument = task.data.partition(" ")
        if verb == "wait":  # until a file is there, for tests that decide when
            Path(argument + ".begun").touch()
            while not Path(argument).exists():
                time.sleep(0.005)
        elif verb == "pid":
            return os.getpid()
        elif verb == "raise":
            raise ValueError(argument)
        return argument

    async def on_finish(self, completion: Completion) -> None:
        self.completions.append(completion)
        self.heard.set()
        if completion.stream is not None and completion.error is None:
            await completion.stream.send_frame(f"finished {completion.result}".encode())


tasks = Tasks()
