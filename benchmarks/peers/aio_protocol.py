"""An asyncio Protocol: ``python -m benchmarks.peers.aio_protocol [--uvloop] [--joined]``.

One task a connection calls the handler for the lines in order; it is woken when data arrives and it
waits. With ``--joined``, replies to lines that arrived together leave together.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from benchmarks.peers._aio import BACKLOG, run
from benchmarks.peers._lines import REPLY, Lines, LineTooLongError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    OnReceive = Callable[["Connection", bytes], Awaitable[None]]

_MANY: Final = 64 * 1024
"""Bytes that may wait for the handler, or to be joined, until it must wait itself."""


class Connection(asyncio.Protocol):
    """One connection: writes each reply as it comes."""

    _transport: asyncio.Transport
    _task: asyncio.Task[None]

    def __init__(self, on_receive: OnReceive) -> None:
        self._on_receive = on_receive
        self._loop = asyncio.get_running_loop()
        self._chunks: list[bytes] = []
        self._is_reading = True
        self._is_closed = False
        self._reader: asyncio.Future[None] | None = None
        self._is_full = False
        self._writers: list[asyncio.Future[None]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._task = self._loop.create_task(self._run())

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        if self._reader is not None:
            self._reader.set_result(None)
            self._reader = None
        elif len(self._chunks) > 1 and sum(map(len, self._chunks)) > _MANY:
            self._transport.pause_reading()
            self._is_reading = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closed = True
        if self._reader is not None:
            self._reader.set_result(None)
            self._reader = None
        self.resume_writing()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        for writer in self._writers:
            if not writer.done():
                writer.set_result(None)
        self._writers.clear()

    async def send(self, data: bytes) -> None:
        """Write, and wait while too much is unsent."""
        self._transport.write(data)
        if self._is_full:
            await self._wait_writable()

    async def _wait_writable(self) -> None:
        while self._is_full:
            writer = self._loop.create_future()
            self._writers.append(writer)
            await writer

    async def _run(self) -> None:
        lines, on_receive = Lines(), self._on_receive
        try:
            while not self._is_closed:
                if not self._chunks:
                    self._reader = self._loop.create_future()
                    await self._reader
                    continue
                chunks, self._chunks = self._chunks, []
                if not self._is_reading:
                    self._transport.resume_reading()
                    self._is_reading = True
                for chunk in chunks:
                    for line in lines.feed(chunk):
                        await on_receive(self, line)
        except LineTooLongError:
            self._transport.close()


class JoiningConnection(Connection):
    """Writes replies together: at the latest when the handler waits for anything."""

    def __init__(self, on_receive: OnReceive) -> None:
        super().__init__(on_receive)
        self._replies: list[bytes] = []
        self._size = 0

    async def send(self, data: bytes) -> None:
        if not self._replies:
            # The loop comes to it as soon as the task of this connection is suspended.
            self._loop.call_soon(self._flush)
        self._replies.append(data)
        self._size += len(data)
        if self._size > _MANY:
            self._flush()
            if self._is_full:
                await self._wait_writable()

    def _flush(self) -> None:
        if self._replies:
            self._transport.write(b"".join(self._replies))
            self._replies.clear()
            self._size = 0


async def on_receive(connection: Connection, _line: bytes) -> None:
    """Answer."""
    await connection.send(REPLY)


async def serve(factory: Callable[[], Connection]) -> None:
    """Serve, with a connection of ``factory`` for each client."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(factory, "127.0.0.1", 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def main() -> None:
    """Serve."""
    await serve(
        partial(JoiningConnection if "--joined" in sys.argv[1:] else Connection, on_receive)
    )


if __name__ == "__main__":
    run(main)
