"""What an event worker asks its manager and cannot wait for in Trio's way: synchronous calls.

`Server.statistics`, `Server.cancel` and the next block of ids are plain calls, and their answers
are the manager's. So the event worker blocks for some hundred microseconds on a socket of its own;
a manager that is stopped or busy makes it give up.
"""

from __future__ import annotations

import logging
import pickle
import struct
import time
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Self

import trio

from trioserver._sending import Sender

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

logger = logging.getLogger("trioserver.manager")

_QUESTION: Final = struct.Struct("=IBQ")
_ANSWER: Final = struct.Struct("=IQ")
_PATIENCE: Final = 1.0
"""Seconds that an answer may take; the loop of the event worker stands still for so long."""
_LONG_PATIENCE: Final = 30.0
"""The same for ids, without which nothing can go on."""
_MOST_AT_ONCE: Final = 64 * 1024
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


_KNOWN: Final = frozenset(Ask)


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
        # What has come of an answer that is not whole yet; its question may be given up by now.
        self._held = b""

    def ask(self, question: Ask, number: int = 0, patience: float = _PATIENCE) -> object:
        """Ask, and block until the answer is there.

        Raises:
          NoAnswerError: if that takes longer than ``patience`` seconds.
        """
        self._count = (self._count + 1) % 2**32
        deadline = time.monotonic() + patience
        try:
            self._sock.settimeout(patience)
            self._sock.sendall(_QUESTION.pack(self._count, question, number))
            while True:
                self._hold(_ANSWER.size, deadline)
                count, size = _ANSWER.unpack_from(self._held)
                self._hold(_ANSWER.size + size, deadline)
                body = self._held[_ANSWER.size : _ANSWER.size + size]
                self._held = self._held[_ANSWER.size + size :]
                if count == self._count:  # else it is late, and nobody waits for it any more
                    return pickle.loads(body)  # noqa: S301  # the manager has pickled it
        except OSError as exc:
            raise NoAnswerError("the manager does not answer") from exc

    def _hold(self, size: int, deadline: float) -> None:
        """Have so many bytes of answers."""
        while len(self._held) < size:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._sock.settimeout(left)
            more = self._sock.recv(_MOST_AT_ONCE)
            if not more:
                raise ConnectionResetError
            self._held += more


class Ids:
    """All ids that a process will need, a block at a time.

    Args:
      asker: Asks for blocks.
      question: For which.
    """

    def __init__(self, asker: Asker, question: Ask) -> None:
        self._asker = asker
        self._question = question
        self._block = iter(range(0))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        """The next one.

        Raises:
          NoAnswerError: if the manager does not answer; asking again is not in vain.
        """
        for number in self._block:
            return number
        first = self._asker.ask(self._question, patience=_LONG_PATIENCE)
        assert isinstance(first, int)
        self._block = iter(range(first, first + IDS))
        return next(self._block)


async def answer_questions(
    sock: socket.socket, nursery: trio.Nursery, answer: Callable[[int, int], object]
) -> None:
    """The manager's end: answer until the event worker is dead.

    Returns as soon as what comes is no question.

    Args:
      sock: Connected and non-blocking.
      nursery: Where what the socket has no room for is written.
      answer: Called with the question and its number; what it returns is pickled.
    """
    sender = Sender(sock, nursery)
    held = b""
    while True:
        await sender.wait_sent()  # nobody asks again before the answer, but who does not read
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
            if question not in _KNOWN:
                logger.error("an event worker asks what makes no sense: it is answered no more")
                return
            held = held[_QUESTION.size :]
            body = pickle.dumps(answer(question, number))
            sender.send([_ANSWER.pack(count, len(body)), body])
