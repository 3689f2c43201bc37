"""An app whose event workers send each other messages, as clients tell them in Python."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, NoReturn

import trio

from trioserver import EofFraming

if TYPE_CHECKING:
    from trioserver import Connection, Server

LOCK: Final = threading.Lock()
"""Something that cannot be pickled."""


class Bad:
    """A message that raises where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return raise_it, ()


def raise_it() -> NoReturn:
    raise SystemExit("bad message")


class Deaf:
    """Answers with the ``repr`` of what a line evaluates to; it hears no messages."""

    framing = EofFraming(b"\n")

    def __init__(self) -> None:
        self.heard: list[tuple[int, Any]] = []
        self.may_hear = trio.Event()
        self.may_hear.set()

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        names = {**globals(), "app": self, "heard": self.heard, "server": stream.server}
        try:
            answer = repr(eval(data, names))
        except Exception as exc:  # noqa: BLE001  # it is the answer
            answer = f"{type(exc).__name__}: {exc}"
        await stream.send_frame(answer.encode())


class App(Deaf):
    """The same, and ``heard`` is what it has heard."""

    async def on_message(self, server: Server, source: int, message: object) -> None:
        await self.may_hear.wait()
        if message == "raise":
            raise ValueError("not that message")
        self.heard.append((source, len(message) if isinstance(message, bytes) else message))


def flood(server: Server, worker_id: int, size: int, count: int) -> int:
    """Send as many as will be taken, up to ``count``; how many those were."""
    for number in range(count):
        try:
            server.send_message(worker_id, b"x" * size)
        except trio.WouldBlock:
            return number
    return count
