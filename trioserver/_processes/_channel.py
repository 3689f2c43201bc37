"""What the manager and an event worker say to each other, over the socketpair between them.

Rules:

1. Records are put one by one and sent together: many tasks, or many completions, in one message.
2. A body that is a task's data, its result or a message of a user's is bytes here, and stays so in
   the manager.
3. Nothing is believed that cannot be: an unknown kind, a size beyond any, an id that nobody knows.
   What the event worker's own code may have written there costs that worker its life, and no more.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from trioserver._sending import WORTH_A_COPY, Sender
from trioserver._tasks._options import Options
from trioserver._tasks._wire import RecordStream, WireError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from trioserver._tasks._job import Job

HEAD: Final = struct.Struct("=BQQ")
"""Kind, id, size of the body that follows."""
_RECEIVE_SIZE: Final = 256 * 1024
_OVERHEAD: Final = 1024 * 1024
"""Bytes that a body may have beside a task's data or result: options, times, words."""


class Say(IntEnum):
    """The kinds of records, and what id and body mean."""

    # An event worker says:
    READY = 1
    """It could accept."""
    FAILED = 2
    """It cannot start; the body is a reason and a traceback, as JSON."""
    POST = 3
    """A task's id; its options (`pack_post`) and its data."""
    CANCEL = 4
    """A task's id; the reason."""
    WANT_ROOM = 5
    """Somebody waits for room, and has found none in the state of `Room` of this version."""
    SEND = 6
    """The number of the event worker that it is for, or `ALL`; a message."""
    RELOAD = 7
    """1 for task workers alone, 0 for everything."""
    SHUTDOWN = 8
    RECYCLE = 9
    """It has served so much that another one may take its place."""
    PONG = 10
    LEFT = 11
    """It is about to end; the id is how many tasks and callbacks it has cut."""
    ACCEPTS_NO_MORE = 12
    """As it was told; who connects from now on gets to others."""
    # The manager says:
    ACCEPT = 32
    """The sockets listen."""
    ENDED = 33
    """A task's id; how it ended (`pack_end`) and its result."""
    PROGRESS = 34
    """A task's id; a value."""
    POSTED = 35
    """The id of a task that another one has posted: which one (`PARENT`), and the data."""
    ROOM = 36
    """There may be room in the queue now."""
    MESSAGE = 37
    """The number of the event worker that sends it; a message."""
    RETIRE = 38
    """Accept no more, and leave without a loss."""
    STOP = 39
    """Leave, within the time that a stop has."""
    PING = 40


ALL: Final = 2**64 - 1
PARENT: Final = struct.Struct("=Q")

_POST: Final = struct.Struct("=BBddIi")
_END: Final = struct.Struct("=BIiddd")
_NONE: Final = -1
_MOST_RETRIES: Final = 2**32 - 1


def pack_post(job: Job) -> bytes:
    """What the manager must know of ``job`` beside its data."""
    options = job.options
    worker = _NONE if options.task_worker is None else options.task_worker
    retries = min(options.retries, _MOST_RETRIES)
    # A caller waits for it, in whose absence nobody wants it, or a connection owns it.
    owned = job.stream is not None or job.caller is not None
    return _POST.pack(job.kind, owned, options.timeout, options.queue_timeout, retries, worker)


POST_SIZE: Final = _POST.size


def unpack_post(head: bytes) -> tuple[int, bool, Options]:
    """The kind, whether it ends with who has posted it, and the options that `pack_post` was given.

    Raises:
      WireError: if it cannot have been given them.
    """
    try:
        kind, owned, timeout, queue_timeout, retries, worker = _POST.unpack(head)
    except struct.error:
        raise WireError from None
    if not (timeout > 0 and queue_timeout > 0 and kind <= 1 and worker >= _NONE):
        raise WireError
    task_worker = None if worker == _NONE else worker
    return kind, bool(owned), Options(timeout, queue_timeout, retries, task_worker)


def pack_end(job: Job) -> bytes:
    """How ``job`` ended, beside its result."""
    worker = _NONE if job.worker_id is None else job.worker_id
    assert job.status is not None, "it has ended"
    return _END.pack(job.status, job.attempt, worker, job.queued_at, job.begun_at, job.ran)


def take_end(job: Job, body: bytes) -> None:
    """Let ``job`` have ended as `pack_end` was told, with what follows that."""
    status, attempt, worker, job.queued_at, job.begun_at, job.ran = _END.unpack_from(body)
    job.status = status
    job.attempt = attempt
    job.worker_id = None if worker == _NONE else worker
    job.body = body[_END.size :]


Record = tuple[int, int, bytes]


class Channel:
    """One end of the socketpair.

    Args:
      sock: The end, non-blocking; its owner closes it.
      nursery: Where what the socket has no room for is written.
      max_body: Bytes of data, of a result or of a message at the most.
    """

    def __init__(self, sock: socket.socket, nursery: trio.Nursery, max_body: int) -> None:
        self._sock = sock
        self._nursery = nursery
        self._sender = Sender(sock, nursery)
        self._is_hung_up = False
        self._parts: list[bytes] = []
        # Not a method of this: in a cycle, a dead peer's channel would keep its memory for long.
        check = partial(_check, max_body + _OVERHEAD)
        self._stream: RecordStream[Any] = RecordStream(HEAD, check)
        self._buffer = memoryview(bytearray(_RECEIVE_SIZE))
        self._is_closed = False

    # Out

    def put(self, kind: Say, number: int = 0, head: bytes = b"", body: bytes = b"") -> None:
        """Say something at the next `flush`; ``head`` and ``body`` are one body for the peer."""
        first = HEAD.pack(kind, number, len(head) + len(body)) + head
        if len(body) < WORTH_A_COPY:
            self._parts.append(first + body)
        else:
            self._parts += (first, body)

    def flush(self) -> None:
        """Send what was put; never waits."""
        if self._parts:
            parts, self._parts = self._parts, []
            self._sender.send(parts)

    def say(self, kind: Say, number: int = 0, head: bytes = b"", body: bytes = b"") -> None:
        """`put` and `flush`."""
        self.put(kind, number, head, body)
        self.flush()

    def send_raw(self, data: bytes) -> None:
        """Send what is no record: the rest of a boot, before anything else is said."""
        self._sender.send([data])

    @property
    def unsent(self) -> int:
        """Bytes that the peer has not made room for."""
        return self._sender.unsent

    async def wait_sent(self) -> None:
        """Until all that was said is on its way, or the peer is dead."""
        self.flush()
        await self._sender.wait_sent()

    def when_sent(self, then: Callable[[], object]) -> None:
        """Call ``then`` when all that was said is on its way, unless the nursery ends before."""
        if not self._is_hung_up:
            self._nursery.start_soon(self._call_when_sent, then)

    def hang_up(self) -> None:
        """Say nothing more: the nursery ends."""
        self._is_hung_up = True
        self._sender.hang_up()

    async def _call_when_sent(self, then: Callable[[], object]) -> None:
        await self.wait_sent()
        then()

    # In

    async def listen(self, hear: Callable[[list[Record]], None]) -> None:
        """Pass on what comes, several at a time, until the end.

        Raises:
          WireError: if it makes no sense, or ``hear`` says so; nothing is read from then on.
        """
        while not self._is_closed:
            await trio.lowlevel.wait_readable(self._sock)
            self.read(hear)

    def read(self, hear: Callable[[list[Record]], None]) -> bool:
        """Pass on what is there, without waiting for it; False if nothing is.

        Raises:
          WireError: as `listen`.
        """
        try:
            size = self._sock.recv_into(self._buffer)
        except BlockingIOError:
            return False
        except ConnectionError:
            size = 0
        if not size:
            self._is_closed = True
            return False
        try:
            self._take(bytes(self._buffer[:size]), hear)
        except WireError:
            self._is_closed = True
            raise
        return True

    def read_all(self, hear: Callable[[list[Record]], None]) -> None:
        """Pass on all that is there by now: what a dead peer has left, or what was said before.

        Raises:
          WireError: as `listen`.
        """
        while not self._is_closed and self.read(hear):
            pass

    def _take(self, data: bytes, hear: Callable[[list[Record]], None]) -> None:
        records = self._stream.feed(data)
        if records:
            hear(records)
        if self._stream.is_garbled:
            raise WireError


def _check(max_size: int, fields: tuple[Any, ...]) -> None:
    if fields[-1] > max_size:
        raise WireError
