"""The records on the Unix socket between the dispatcher's process and a task worker.

Rules:
1. Each direction is a stream of records, and a record is a fixed header and a body. There is no
   message around records, so any number of them can travel in one system call.
2. A body is opaque here. What a user posted is pickled once, in the process that posted it, and
   unpickled once, in the worker (the results the other way round). A large one lies elsewhere, and
   its record says where (see `_arena`).
3. Byte order and sizes are the machine's own: the two ends are one machine and one Python.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import enum
import marshal
import struct
from collections.abc import Callable  # noqa: TC003  # cheap, and needed to read the signature
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

from trioserver._tasks._payloads import MARSHAL_VERSION

# seq, task id, attempt, kind, bytes of the body
ORDER = struct.Struct("=QQIBQ")
# seq, status, begun (CLOCK_MONOTONIC), seconds it ran, bytes of the body
REPORT = struct.Struct("=QBddQ")
# a worker's first bytes: its token and pid
HELLO = struct.Struct("=32sI")
ELSEWHERE: Final = 1 << 63
"""What is no smaller than this is no size, but says where the body is (see `_arena`)."""


class Kind(enum.IntEnum):
    """What a worker is told to do."""

    TASK = 0
    """The body is what was posted: call ``on_task``."""
    CALL = 1
    """The body is a function and its arguments (``run_sync``)."""
    STOP = 2
    """Leave, after ``on_task_worker_stop``."""
    CANCEL = 3
    """Cancel the scope of the running task that has this seq; ignored if none has it. No body."""
    POSTED = 4
    """The answer to a `Status.POST` of this seq: the new task's id in the place of the task id, an
    `Answer` in that of the attempt; the body is the reason as text, empty if it was accepted."""
    MANY = 5
    """The body is many orders, as `pack_orders` makes it."""


class Answer(enum.IntEnum):
    """What becomes of a task that a task has posted."""

    ACCEPTED = 0
    FULL = 1
    """The queue has no room now."""
    CLOSED = 2
    """Nothing is accepted any more."""


class Status(enum.IntEnum):
    """What a worker reports, and how a job ends."""

    OK = 0
    """The body is the pickled result."""
    FAILED = 1
    """The body is a packed `Failure`."""
    CANCELLED = 2
    """The body is the reason as text. A worker reports it, with no body, for a task that was ended
    by the cancellation of its scope."""
    CRASHED = 3
    """The body is the exit code as text, empty if unknown."""
    TIMED_OUT = 4
    """The body is what `pack_timeout` makes."""
    READY = 16
    """The worker has run ``on_task_worker_start``; no seq."""
    START_FAILED = 17
    """The worker cannot begin; the body is a traceback as text; no seq."""
    SKIPPED = 18
    """The worker met a revoked order and did not run it."""
    POST = 19
    """The running task of this seq posts a new one, whose pickled data is the body."""
    PROGRESS = 20
    """There is progress on the page; no seq, no body."""


# Plain tuples: one is made for every task in each direction, and a named tuple costs twice as much.
Order: TypeAlias = "tuple[int, int, int, int, bytes | memoryview]"
"""seq, task id, attempt, `Kind`, body"""
Report: TypeAlias = tuple[int, int, float, float, bytes]
"""seq, `Status`, begun (CLOCK_MONOTONIC), seconds that it ran, body"""

RecordT = TypeVar("RecordT")


class WireError(Exception):
    """What came is not records: a task has written to its worker's descriptors."""


class RecordStream(Generic[RecordT]):
    """Cuts a stream of bytes into records; linear also for bodies that come in many pieces.

    Args:
      header: Of each record; its last field is the size of the body.
      check: Called with the fields of a header whose body is still to come, since a wrong size
        would be waited for without end; raises `WireError`.
    """

    __slots__ = ("_check", "_chunks", "_header", "_held", "_needed", "is_garbled")

    def __init__(
        self, header: struct.Struct, check: Callable[[tuple[Any, ...]], None] | None = None
    ) -> None:
        self._header = header
        self._check = check
        self.is_garbled = False
        self._chunks: list[bytes] = []
        self._held = 0
        # No record can be whole before this many bytes are held.
        self._needed = header.size

    @property
    def held(self) -> int:
        """Bytes of a record that is not whole yet."""
        return self._held

    def feed(self, data: bytes) -> list[RecordT]:
        """Take ``data`` and return the records that are whole now.

        ``is_garbled`` says whether what follows them is none; nothing can be read from then on.
        """
        self._chunks.append(data)
        self._held += len(data)
        if self._held < self._needed:
            return []
        held = data if len(self._chunks) == 1 else b"".join(self._chunks)
        self._needed = self._header.size
        records: list[RecordT] = []
        rest = held[self._cut(held, records) :]
        self._chunks = [rest] if rest else []
        self._held = len(rest)
        return records

    def _cut(self, held: bytes, records: list[Any]) -> int:
        """Append what is whole to ``records``; where the rest begins."""
        unpack_from, header_size = self._header.unpack_from, self._header.size
        at, end = 0, len(held)
        while end - at >= header_size:
            fields: tuple[Any, ...] = unpack_from(held, at)
            body_at = at + header_size
            stop = body_at + fields[-1]
            if stop > end:
                self._expect(fields, stop - at)
                break
            # Unpacking with a star costs more than all the rest of this loop.
            records.append(fields[:-1] + (held[body_at:stop],))  # noqa: RUF005
            at = stop
        return at

    def _expect(self, fields: tuple[Any, ...], size: int) -> None:
        """The record that begins with ``fields`` and has so many bytes is not whole yet."""
        self._needed = size
        if self._check is not None:
            try:
                self._check(fields)
            except WireError:
                self.is_garbled = True


class TaskStream(RecordStream[RecordT]):
    """The same for `ORDER` and `REPORT`, which are many, and whose bodies may be elsewhere.

    Args:
      header: One of these two.
      check: See `RecordStream`.
      fetch: Called with the fields of a header whose body is elsewhere: what that is; raises
        `WireError`.
    """

    __slots__ = ("_fetch",)

    def __init__(
        self,
        header: struct.Struct,
        check: Callable[[tuple[Any, ...]], None] | None = None,
        fetch: Callable[[tuple[Any, ...]], bytes | memoryview] | None = None,
    ) -> None:
        super().__init__(header, check)
        self._fetch = fetch

    def _cut(self, held: bytes, records: list[Any]) -> int:
        unpack_from, header_size = self._header.unpack_from, self._header.size
        at, end = 0, len(held)
        while end - at >= header_size:
            # Each by name: to take tuples apart and put them together costs a third of this loop.
            first, second, third, fourth, size = unpack_from(held, at)
            body_at = at + header_size
            stop = body_at + size
            if stop > end:
                fields = first, second, third, fourth, size
                if size < ELSEWHERE or self._fetch is None:
                    self._expect(fields, stop - at)
                    break
                try:
                    records.append((first, second, third, fourth, self._fetch(fields)))
                except WireError:
                    self.is_garbled = True
                    break
                stop = body_at
            else:
                records.append((first, second, third, fourth, held[body_at:stop]))
            at = stop
        return at


def pack_orders(orders: list[Order]) -> bytes:
    """One record of `Kind.MANY` for ``orders``, whose bodies are all there.

    Marshal does in one call what a loop here and one in the worker would do for each; it knows
    plain numbers and bytes only. Reports do not go this way: a task may have written them, and
    marshal trusts what it reads.
    """
    body = marshal.dumps(orders, MARSHAL_VERSION)
    return ORDER.pack(0, 0, 0, Kind.MANY, len(body)) + body


def unpack_orders(body: bytes | memoryview) -> list[Order]:
    """What `pack_orders` was given."""
    orders: list[Order] = marshal.loads(body)  # noqa: S302  # the dispatcher has made it
    return orders


def pack_timeout(seconds: float, begun: bool) -> bytes:  # noqa: FBT001  # two fields of a record
    """The body of `Status.TIMED_OUT`: the time that a job had, and whether it had begun."""
    return _TIMEOUT.pack(seconds, begun)


def unpack_timeout(body: bytes) -> tuple[float, bool]:
    """What `pack_timeout` was given."""
    seconds, begun = _TIMEOUT.unpack(body)
    return seconds, bool(begun)


class Failure(NamedTuple):
    """The body of a report of `Status.FAILED`: how a task raised, in words that always survive."""

    summary: str
    remote_traceback: str
    pickled: bytes
    """The exception itself, empty where it does not survive pickling."""

    def pack(self) -> bytes:
        """As bytes, without pickle: reading it runs no code of the user's."""
        texts = [text.encode(errors="backslashreplace") for text in self[:2]]
        return b"".join([_TEXTS.pack(*map(len, texts)), *texts, self.pickled])

    @classmethod
    def unpack(cls, body: bytes) -> Failure:
        """The failure that `pack` made these bytes of."""
        summary_size, traceback_size = _TEXTS.unpack_from(body)
        summary_end = _TEXTS.size + summary_size
        traceback_end = summary_end + traceback_size
        return cls(
            body[_TEXTS.size : summary_end].decode(),
            body[summary_end:traceback_end].decode(),
            body[traceback_end:],
        )


_TEXTS = struct.Struct("=QQ")
_TIMEOUT = struct.Struct("=dB")
