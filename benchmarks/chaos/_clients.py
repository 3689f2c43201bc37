"""Clients that come, ask, and go; killers, which ask the server to signal its task workers."""

from __future__ import annotations

import json
import signal
import socket
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import trio

from benchmarks.chaos._plan import TASK_WORKERS, blows, sessions
from benchmarks.served import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from benchmarks.chaos._plan import Session

CLIENTS: Final = 20
_RESET: Final = struct.pack("ii", 1, 0)
_APART: Final = 0.2
"""Seconds between the signals of one blow."""


async def be_clients(port: int, random: Random, name: str) -> None:
    """Come and go, again and again, until cancelled."""
    for session in sessions(random, name):
        with suppress(OSError, trio.BrokenResourceError):
            await _be_client(port, session)


async def _be_client(port: int, session: Session) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        with trio.move_on_after(PATIENCE):
            for pause, request in session.requests:
                await trio.sleep(pause)
                await stream.send_all(request)
            await trio.sleep(session.stays)
        if session.goodbye == "reset":
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif session.goodbye == "half":
            await stream.send_eof()
            with trio.move_on_after(5.0):
                while await stream.receive_some():
                    pass


class Control:
    """A connection that asks the server for what clients do not ask for."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = b""
        self._asking = trio.Lock()

    async def statistics(self) -> dict[str, Any]:
        """The server's."""
        async with self._asking:
            await self._stream.send_all(b'{"statistics": true}\n')
            while b"\n" not in self._buffer:
                received = await self._stream.receive_some()
                if not received:
                    raise EOFError("the server has closed the connection that controls it")
                self._buffer += received
            line, _, self._buffer = self._buffer.partition(b"\n")
        numbers: dict[str, Any] = json.loads(line)
        return numbers

    async def signal(self, worker: int, signum: int) -> None:
        """Have a task worker's process signalled, if there is one at that moment."""
        async with self._asking:
            request = {"worker": worker, "signal": int(signum)}
            await self._stream.send_all(json.dumps(request).encode() + b"\n")

    async def settle(self) -> str | None:
        """Continue what was stopped; return when nothing is left to do and all workers live.

        Returns:
          What is left to do if that lasts too long, None if all is well.
        """
        deadline = trio.current_time() + PATIENCE
        while True:
            for worker in range(TASK_WORKERS):
                await self.signal(worker, signal.SIGCONT)
            now = await self.statistics()
            if (
                now["connections"] == 1
                and now["queued"] == now["running"] == 0
                and now["idle_workers"] == TASK_WORKERS
            ):
                return None
            if trio.current_time() > deadline:
                return f"the server does not come to rest: {now}"
            await trio.sleep(0.05)


@asynccontextmanager
async def open_control(port: int) -> AsyncIterator[Control]:
    """A connection for the killers and for the curious."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        yield Control(stream)


class Killer:
    """Hits task workers, until cancelled."""

    def __init__(self) -> None:
        self.blows = 0

    async def kill(self, control: Control, random: Random) -> None:
        """One blow after the other."""
        for blow in blows(random):
            await trio.sleep(blow.after)
            for number, signum in enumerate(blow.signals):
                if number:
                    await trio.sleep(_APART)
                await control.signal(blow.worker, signum)
            self.blows += 1
