"""Clients that connect, ask, wait for the answers, and connect again; and what is wrong with them.

A server that leaves may close a connection between two requests. A client that has just sent one
then finds the connection closed instead of an answer: such a request is `Findings.unanswered`, and
the log of the server tells whether it had been read.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from benchmarks.served import PATIENCE

if TYPE_CHECKING:
    from random import Random

CLIENTS: Final = 16
_DOINGS: Final = {"reply": 2, "post": 5, "own": 2, "run": 3}
_LONG_PAUSE: Final = 1.5
"""Seconds; some clients are idle for so long between two requests."""
_SHORT_PAUSE: Final = 0.01


@attrs.frozen
class Cut:
    """A connection that ended before its client wanted it to end."""

    port: int
    """The client's."""
    began: float
    ended: float
    how: str
    """``reset`` or ``eof``."""
    unanswered: tuple[str, ...]
    """The tokens of requests that were sent."""
    rest: int
    """Bytes of an answer that has not come whole."""


@attrs.define(eq=False)
class Findings:
    """What clients have seen."""

    connections: int = 0
    answers: int = 0
    markers: dict[int, float] = attrs.field(factory=dict)
    """When each was first seen."""
    workers: set[int] = attrs.field(factory=set)
    """The numbers of those that have answered."""
    left: set[str] = attrs.field(factory=set)
    """The tokens of requests whose client has left without waiting."""
    refused: list[str] = attrs.field(factory=list)
    cuts: list[Cut] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)


class Clients:
    """The clients.

    Args:
      port: Where the server listens.
      findings: Where they write down what they see.
    """

    def __init__(self, port: int, findings: Findings) -> None:
        self._port = port
        self.findings = findings
        self.are_done = False
        """Whether they should connect no more."""

    async def be(self, name: str, random: Random) -> None:
        """Be one of them."""
        number = 0
        while not self.are_done:
            number += 1
            session = _Session(f"{name}-{number}", random, self)
            await session.run(self._port)

    async def ask(self, do: str) -> dict[str, Any] | None:
        """One request on a connection of its own; None if its event worker was killed."""
        try:
            async with await trio.open_tcp_stream("127.0.0.1", self._port) as stream:
                await stream.send_all(_request("asked", do))
                received = b""
                while not received.endswith(b"\n"):
                    data = await stream.receive_some()
                    if not data:
                        return None
                    received += data
        except (trio.BrokenResourceError, OSError):
            return None
        answer: dict[str, Any] = json.loads(received)
        return answer


class _Session:
    """From a client's coming to its going."""

    def __init__(self, name: str, random: Random, clients: Clients) -> None:
        self._name = name
        self._random = random
        self._clients = clients
        self._findings = clients.findings
        self._waiting: dict[str, int] = {}
        """The tokens of requests that are not answered, and the size of what will answer them."""
        self._buffer = b""
        self._server: tuple[int, int, int] | None = None
        """Its pid, number and marker: those of one connection never change."""

    async def run(self, port: int) -> None:
        began = time.monotonic()
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError as exc:
            self._findings.refused.append(f"{self._name}: {exc!r}")
            await trio.sleep(_SHORT_PAUSE)
            return
        self._findings.connections += 1
        own_port = stream.socket.getsockname()[1]
        async with stream:
            how = "reset"
            try:
                with trio.fail_after(PATIENCE):
                    if await self._talk(stream):
                        return
                how = "eof"
            except trio.BrokenResourceError:
                pass
            except trio.TooSlowError:
                self._findings.wrong.append(f"{self._name}: no answer to {list(self._waiting)}")
                return
        self._findings.cuts.append(
            Cut(
                port=own_port,
                began=began,
                ended=time.monotonic(),
                how=how,
                unanswered=tuple(self._waiting),
                rest=len(self._buffer),
            )
        )

    async def _talk(self, stream: trio.SocketStream) -> bool:
        """Ask and hear; False if the server closed the connection."""
        random = self._random
        left = random.randint(1, 20)
        does_pause = random.random() < 0.1
        leaves_early = random.random() < 0.1
        while left > 0 and not self._clients.are_done:
            batch = min(left, random.choice([1, 1, 1, 4]))
            left -= batch
            await stream.send_all(b"".join(self._new_request(left + i) for i in range(batch)))
            if leaves_early and left == 0:
                # What the connection owns is cancelled.
                self._findings.left.update(self._waiting)
                return True
            while self._waiting:
                if not await self._hear(stream):
                    return False
            with trio.move_on_after(
                random.random() * (_LONG_PAUSE if does_pause else _SHORT_PAUSE)
            ):
                # Between requests only the end can come.
                if not await self._hear(stream):
                    return False
        return True

    def _new_request(self, number: int) -> bytes:
        random = self._random
        token = f"{self._name}-{number}"
        do = random.choices(list(_DOINGS), list(_DOINGS.values()))[0]
        size = random.choice([0, 100, 10_000])
        self._waiting[token] = size
        return _request(
            token,
            do,
            size=size,
            seconds=random.choice([0, 0, 0, 0.005, 0.03]),
            retries=random.choice([0, 0, 2]),
            posts=random.random() < 0.1,
        )

    async def _hear(self, stream: trio.SocketStream) -> bool:
        received = await stream.receive_some()
        if not received:
            return False
        *lines, self._buffer = (self._buffer + received).split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        return True

    def _take(self, answer: dict[str, Any]) -> None:
        findings = self._findings
        size = self._waiting.pop(answer["token"], None)
        if size != len(answer["padding"]):
            findings.wrong.append(f"{self._name}: an answer to {answer['token']} as of size {size}")
        server = (answer["pid"], answer["worker"], answer["marker"])
        if self._server not in {None, server}:
            findings.wrong.append(f"{self._name}: answers of {self._server} and of {server}")
        self._server = server
        findings.answers += 1
        findings.workers.add(answer["worker"])
        findings.markers.setdefault(answer["marker"], time.monotonic())


def _request(
    token: str,
    do: str,
    *,
    size: int = 0,
    seconds: float = 0,
    retries: int = 0,
    posts: bool = False,
) -> bytes:
    request = {
        "token": token,
        "do": do,
        "size": size,
        "seconds": seconds,
        "retries": retries,
        "posts": posts,
    }
    return json.dumps(request).encode() + b"\n"
