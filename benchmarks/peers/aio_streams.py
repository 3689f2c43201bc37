"""asyncio's streams: ``python -m benchmarks.peers.aio_streams [--uvloop]``."""

from __future__ import annotations

import asyncio

from benchmarks.peers._aio import BACKLOG, run
from benchmarks.peers._lines import MAX_LENGTH, REPLY, TERMINATOR


async def on_receive(writer: asyncio.StreamWriter, _line: bytes) -> None:
    """Answer."""
    writer.write(REPLY)
    await writer.drain()


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection."""
    try:
        while True:
            line = await reader.readuntil(TERMINATOR)
            await on_receive(writer, line[: -len(TERMINATOR)])
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        writer.close()


async def main() -> None:
    """Serve."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=MAX_LENGTH, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    run(main)
