"""The servers that the network cases compare, each in a process of its own on the server's core."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from benchmarks._cores import LOAD_CORE, SERVER_CORE, cpu_seconds, pin, pinned, unpin
from benchmarks._needs import SWOOLE, need_module, need_swoole
from benchmarks._processes import rss
from benchmarks._suite import OURS
from benchmarks.peers._lines import REPLY
from benchmarks.served import ROOT, Served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

_PATIENCE: Final = 10.0
_PEERS: Final = Path(__file__).parent / "peers"

PLAIN_TRIO: Final = "trio.serve_tcp"
ASYNCIO_STREAMS: Final = "asyncio streams"
ASYNCIO_PROTOCOL: Final = "asyncio Protocol"
UVLOOP_STREAMS: Final = "uvloop streams"
UVLOOP_PROTOCOL: Final = "uvloop Protocol"
UVLOOP_JOINED: Final = "uvloop Protocol, joined replies"


@attrs.frozen
class Server:
    """One that listens on 127.0.0.1."""

    pid: int
    port: int

    @property
    def cpu(self) -> float:
        """Seconds of CPU time that it has used."""
        return cpu_seconds([self.pid])

    @property
    def rss(self) -> int:
        """Bytes that it holds in memory."""
        return rss(self.pid)


@contextmanager
def _ours() -> Iterator[Server]:
    """``python -m trioserver``, with all settings as they are by default but for the address."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with pinned(SERVER_CORE):
            served = stack.enter_context(Served(directory, "benchmarks.peers.pong"))
        yield Server(served.pid, served.wait_ready())


@contextmanager
def _program(*command: str, core: int | None = SERVER_CORE) -> Iterator[Server]:
    """A command that prints its port when it listens."""
    # asyncio complains of clients that leave: of interest only if the server does not start.
    with tempfile.TemporaryFile("w+") as complaints, pinned(core):
        process = subprocess.Popen(  # noqa: S603  # a peer of ours
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            process_group=0,
        )
        try:
            assert process.stdout is not None
            said = process.stdout.readline().strip()
            if not said.isdecimal():
                process.wait()
                complaints.seek(0)
                raise RuntimeError(
                    f"{' '.join(command)} did not start: {said}{complaints.read().strip()}"
                )
            unpin()
            yield Server(process.pid, int(said))
        finally:
            # With the workers that it may have; they would hold its standard output open.
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def peer(
    name: str, *arguments: str, core: int | None = SERVER_CORE
) -> AbstractContextManager[Server]:
    """``python -m benchmarks.peers.NAME ARGUMENTS``, on one core or on any.

    Raises:
      PeerMissingError: if it would need uvloop, which is not here.
    """
    if "--uvloop" in arguments:
        need_module("uvloop")
    return _program(sys.executable, "-m", f"benchmarks.peers.{name}", *arguments, core=core)


def _swoole() -> AbstractContextManager[Server]:
    return _program(need_swoole(), str(_PEERS / "swoole.php"))


SERVERS: Final[Mapping[str, Callable[[], AbstractContextManager[Server]]]] = {
    OURS: _ours,
    PLAIN_TRIO: lambda: peer("trio_tcp"),
    ASYNCIO_STREAMS: lambda: peer("aio_streams"),
    ASYNCIO_PROTOCOL: lambda: peer("aio_protocol"),
    UVLOOP_STREAMS: lambda: peer("aio_streams", "--uvloop"),
    UVLOOP_PROTOCOL: lambda: peer("aio_protocol", "--uvloop"),
    UVLOOP_JOINED: lambda: peer("aio_protocol", "--uvloop", "--joined"),
    SWOOLE: _swoole,
}
"""By name, what starts each; `PeerMissingError` comes out of it if that is not possible here."""


def check(server: Server) -> None:
    """See that it frames, and that it answers each frame.

    Raises:
      RuntimeError: if it does anything else.
    """
    with socket.create_connection(("127.0.0.1", server.port), _PATIENCE) as sock:
        # The first frame arrives in two parts, and the second one with the rest of it.
        for part, replies in ((b"PI", 0), (b"NG\r\nPING\r", 1), (b"\nPING\r\nPING\r\n", 3)):
            sock.sendall(part)
            got = b""
            while len(got) < replies * len(REPLY):
                if not (data := sock.recv(4096)):
                    break
                got += data
            if got != replies * REPLY:
                raise RuntimeError(f"answered {got!r} where {replies} replies were due")


@contextmanager
def serving(name: str) -> Iterator[Server]:
    """One of `SERVERS`, while this process and what it starts keep off its core."""
    with SERVERS[name]() as server:
        pin(LOAD_CORE)
        try:
            check(server)
            yield server
        finally:
            unpin()
