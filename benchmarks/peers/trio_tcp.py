"""``trio.serve_tcp``, with a loop over the lines of each connection."""

from __future__ import annotations

from functools import partial
from typing import Final

import trio

from benchmarks.peers._lines import REPLY, Lines

_READ_SIZE: Final = 64 * 1024


async def on_receive(stream: trio.SocketStream, _line: bytes) -> None:
    """Answer."""
    await stream.send_all(REPLY)


async def handle(stream: trio.SocketStream) -> None:
    """Serve one connection."""
    lines = Lines()
    try:
        while data := await stream.receive_some(_READ_SIZE):
            for line in lines.feed(bytes(data)):
                await on_receive(stream, line)
    except trio.BrokenResourceError:
        pass  # the client has gone, as load generators do


async def main() -> None:
    """Serve."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        print(listeners[0].socket.getsockname()[1], flush=True)


if __name__ == "__main__":
    trio.run(main)
