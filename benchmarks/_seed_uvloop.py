"""The seed's job on a uvloop Protocol: ``python -m benchmarks._seed_uvloop WORKERS``; 0 for none.

One task a connection calls the handler for each line, in order; a task goes to a
``ProcessPoolExecutor``. It prints its port, and answers ``progress`` as `_asked.Asked` does.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Final, cast

from benchmarks._work import nap, same

if TYPE_CHECKING:
    from concurrent.futures import Future

_TERMINATOR: Final = b"\r\n"
_REPLY: Final = b"+PONG\r\n"


class Job:
    """What the handler does with a line, and how far its tasks are."""

    def __init__(self, executor: ProcessPoolExecutor | None) -> None:
        self._executor = executor
        self._posted = self._finished = 0

    async def handle(self, line: bytes) -> bytes:  # noqa: ASYNC124  # handlers may wait
        """The reply."""
        if line == b"progress":
            return json.dumps([self._posted, self._finished]).encode() + b"\n"
        if line == b"PING" and self._executor is not None:
            self._posted += 1
            self._executor.submit(same, 1).add_done_callback(self._finish)
        return _REPLY

    def _finish(self, future: Future[int]) -> None:
        future.result()
        self._finished += 1


class Connection(asyncio.Protocol):
    """One connection, which writes each reply as it comes."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._lines: asyncio.Queue[list[bytes]] = asyncio.Queue()
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(_TERMINATOR)
        if lines:
            self._lines.put_nowait(lines)

    def connection_lost(self, exc: Exception | None) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            for line in await self._lines.get():
                self._transport.write(await self._job.handle(line))


async def _serve(executor: ProcessPoolExecutor | None) -> None:
    job = Job(executor)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(job), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    import uvloop  # noqa: PLC0415  # what is spawned from here has no use for it

    workers = int(sys.argv[1])
    if not workers:
        uvloop.run(_serve(None))
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as executor:
        list(executor.map(nap, [0.1] * (3 * workers)))
        uvloop.run(_serve(executor))


if __name__ == "__main__":
    main()
