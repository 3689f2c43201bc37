r"""A chat whose clients are spread over several processes: what one says, all hear.

    python -m trioserver examples.chat:App
    nc 127.0.0.1 9508            (in several terminals)

The first line is a name, and each one after it goes to everybody, after the number of the event
worker that serves its client: they differ, and yet all hear all. Kill one of these processes
(``kill -9``): its clients are cut off, and the others go on.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from trioserver import EofFraming, Settings

if TYPE_CHECKING:
    from trioserver import Connection, Server


class App:
    framing = EofFraming(b"\n")
    settings = Settings(bind="127.0.0.1:9508", worker_num=3)

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        if not hasattr(stream.state, "name"):
            stream.state.name = data
            stream.state.unread, lines = trio.open_memory_channel[bytes](100)
            stream.start_soon(self.show, stream, lines)
            self.say(stream.server, b"* %b is here" % stream.state.name)
        else:
            self.say(stream.server, b"%b: %b" % (stream.state.name, data))

    async def on_close(self, stream: Connection) -> None:
        if hasattr(stream.state, "name"):
            self.say(stream.server, b"* %b has left" % stream.state.name)

    def say(self, server: Server, line: bytes) -> None:
        server.broadcast(line)  # to all event workers but this one
        self.tell_clients(server, server.worker_id, line)

    async def on_message(self, server: Server, source: int, message: bytes) -> None:
        self.tell_clients(server, source, message)

    def tell_clients(self, server: Server, source: int, line: bytes) -> None:
        for stream in server.connections:
            if hasattr(stream.state, "name"):
                with suppress(trio.WouldBlock):  # who does not read misses lines, and holds up none
                    stream.state.unread.send_nowait(b"%d %b" % (source, line))

    async def show(self, stream: Connection, lines: trio.MemoryReceiveChannel[bytes]) -> None:
        async for line in lines:
            await stream.send_frame(line)
