"""What an event worker asks its manager and cannot wait for in Trio's way: synchronous calls.

`Server.statistics`, `Server.cancel` and the next block of ids are plain calls, and their answers
are the manager's. So the event worker blocks for some hundred microseconds on a socket of its own;
a manager that is stopped or busy makes it give up.
"""

from __future__ import annotations

import pickle
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import trio

from trioserver._sending import Sender

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

_QUESTION: Final = struct.Struct("=IBQ")
_ANSWER: Final = struct.Struct("=IQ")
_PATIENCE: Final = 1.0
"""Seconds that an answer may take; the loop of the event worker stands still for so long."""
_LONG_PATIENCE: Final = 30.0
"""The same for ids, without which nothing can go on."""
IDS: Final = 1000
"""Ids in a block."""


class Ask(IntEnum):
    """The questions, and what their number means."""

    STATISTICS = 1
    """Of the whole server."""
    CANCEL = 2
    """A task's id: whether it was there to be cancelled."""
    TASK_IDS = 3
    """The first one of a block of `IDS`."""
    STREAM_IDS = 4


class NoAnswerError(RuntimeError):
    """The manager does not answer: it is stopped, or has no time."""


class Asker:
    """The event worker's end.

    Args:
      sock: Connected, and nobody else's.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._count = 0

    def ask(self, question: Ask, number: int = 0, patience: float = _PATIENCE) -> object:
        """Ask, and block until the answer is there.

        Raises:
          NoAnswerError: if that takes longer than ``patience`` seconds.
        """
        self._count = (self._count + 1) % 2**32
        self._sock.settimeout(patience)
        try:
            self._sock.sendall(_QUESTION.pack(self._count, question, number))
            while True:
                count, size = _ANSWER.unpack(self._receive(_ANSWER.size))
                body = self._receive(size)
                if count == self._count:  # else it is late, and nobody waits for it any more
                    return pickle.loads(body)
        except OSError as exc:
            raise NoAnswerError("the manager does not answer") from exc

    def ids(self, question: Ask) -> Iterator[int]:
        """All ids that this process will need, a block at a time."""
        while True:
            first = self.ask(question, patience=_LONG_PATIENCE)
            assert isinstance(first, int)
            yield from range(first, first + IDS)

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._sock.recv(size - len(data))
            if not more:
                raise ConnectionResetError
            data += more
        return data


async def answer_questions(
    sock: socket.socket, nursery: trio.Nursery, answer: Callable[[int, int], object]
) -> None:
    """The manager's end: answer until the event worker is dead.

    Args:
      sock: Connected and non-blocking.
      nursery: Where what the socket has no room for is written.
      answer: Called with the question and its number; what it returns is pickled.
    """
    sender = Sender(sock, nursery)
    held = b""
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            data = sock.recv(4096)
        except BlockingIOError:
            continue
        except ConnectionError:
            return
        if not data:
            return
        held += data
        while len(held) >= _QUESTION.size:
            count, question, number = _QUESTION.unpack_from(held)
            held = held[_QUESTION.size :]
            body = pickle.dumps(answer(question, number))
            sender.send([_ANSWER.pack(count, len(body)), body])
