"""What is said between the dispatcher's process and one worker: orders out, reports in.

Rules:

1. Nothing that comes is believed before it is checked, since a task may have written to its
   worker's descriptors.
2. What a worker says is passed on in its order: the posts of a task before its end.
3. Whatever came, the page is looked at for progress, before that is passed on (see
   `_progress_page`, rule 4).
"""

from __future__ import annotations

import math
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import trio

from trioserver._sending import WORTH_A_COPY, Sender
from trioserver._tasks._arena import LARGE, size_at
from trioserver._tasks._wire import (
    ORDER,
    REPORT,
    Answer,
    Kind,
    Order,
    Report,
    Status,
    TaskStream,
    WireError,
    pack_orders,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Sequence

    from trioserver._tasks._arena import Arena
    from trioserver._tasks._job import Job

_RECEIVE_SIZE: Final = 256 * 1024
_OVERHEAD: Final = 1024 * 1024
"""Bytes that a report may have beside a result or an exception: words."""
_OF_JOBS: Final = frozenset({Status.OK, Status.FAILED, Status.SKIPPED, Status.CANCELLED})
# Plain numbers, because every report is compared with them.
_OK: Final = int(Status.OK)
_POST: Final = int(Status.POST)
_CANCELLED: Final = int(Status.CANCELLED)
_INF: Final = math.inf
_MANY: Final = 4
"""Small orders from which on they travel as one."""
_QUIET_TIME: Final = 1.0
"""Seconds without large bodies after which their memory is given back."""
_OF_STARTS: Final = frozenset({Status.READY, Status.START_FAILED})


class Conversation:
    """Talks with one worker until it is dead.

    Args:
      sock: Its connection, non-blocking; closed by whoever opened it.
      nursery: Where what the socket has no room for is written.
      arena: Where large bodies lie.
      max_task_size: Bytes of a task's data, and of its result, at the most.
      on_start: Called once, with `Status.READY` or with `Status.START_FAILED` and a traceback.
      on_reports: Called with the reports of ended jobs as they come.
      on_posted: Called with the seq of a running task and the pickled data of the one that it
        posts; `answer_post` must follow.
      on_look: Called with the seqs of jobs that are handed over and not reported, whenever there
        may be progress of theirs.
      on_garbled: Called when what comes are no reports; nothing can be read from then on.
    """

    def __init__(
        self,
        sock: socket.socket,
        nursery: trio.Nursery,
        arena: Arena,
        *,
        max_task_size: int,
        on_start: Callable[[int, bytes], None],
        on_reports: Callable[[Sequence[Report]], None],
        on_posted: Callable[[int, bytes], None],
        on_look: Callable[[Collection[int]], None],
        on_garbled: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._sender = Sender(sock, nursery)
        self._arena = arena
        # Set while there is something in it, or may be.
        self._has_large = trio.Event()
        self._max_task_size = max_task_size
        self._on_start = on_start
        self._on_reports = on_reports
        self._on_posted = on_posted
        self._on_look = on_look
        self._on_garbled = on_garbled
        self.heard_at = 0.0
        """When anything came."""
        self._has_started = False
        # The last job that was handed over.
        self._last_seq = 0
        # Those that were handed over and are not reported yet, and those of them that were told to
        # cancel themselves.
        self._handed: set[int] = set()
        self._cancelled: set[int] = set()
        # Bodies that were read in the arena, and the worker has not heard that.
        self._fetched = 0
        self._stream: TaskStream[Report] = TaskStream(REPORT, self._check_header, self._fetch)
        # To receive into, since `recv` would map and unmap that much memory every time.
        self._buffer = memoryview(bytearray(_RECEIVE_SIZE))

    # Orders

    def hand(self, jobs: Sequence[Job]) -> None:
        """Hand over ``jobs``, in one message; never waits."""
        self._last_seq = jobs[-1].seq
        self._handed.update([job.seq for job in jobs])
        if len(jobs) >= _MANY and max([job.size for job in jobs]) < WORTH_A_COPY:
            orders: list[Order] = [
                (job.seq, job.id, job.attempt, job.kind, job.payload) for job in jobs
            ]
            self._sender.send([pack_orders(orders)])
            return
        parts: list[bytes] = []
        small: list[bytes] = []
        pack = ORDER.pack
        for job in jobs:
            payload, size = job.payload, job.size
            if size >= LARGE:
                where = self._arena.place(job.seq, payload)
                if where is not None:
                    self._has_large.set()
                    small.append(pack(job.seq, job.id, job.attempt, job.kind, where))
                    continue
            small.append(pack(job.seq, job.id, job.attempt, job.kind, size))
            if size < WORTH_A_COPY:
                small.append(payload)
            else:
                parts += (b"".join(small), payload)
                small.clear()
        if small:
            parts.append(b"".join(small))
        self._sender.send(parts)

    def tell_to_stop(self) -> None:
        """Have the worker leave after what it was given."""
        self._sender.send([ORDER.pack(0, 0, 0, Kind.STOP, 0)])

    def cancel(self, seq: int) -> None:
        """Have job ``seq``, which has begun, cancel itself; it need not, and is reported anyway."""
        if seq in self._handed:
            self._cancelled.add(seq)
            self._sender.send([ORDER.pack(seq, 0, 0, Kind.CANCEL, 0)])

    def answer_post(self, seq: int, task_id: int, answer: Answer, reason: str = "") -> None:
        """Tell the task of job ``seq`` what became of its oldest post that has no answer yet."""
        body = reason.encode(errors="backslashreplace")
        self._sender.send([ORDER.pack(seq, task_id, answer, Kind.POSTED, len(body)) + body])

    def hang_up(self) -> None:
        """Say nothing more: the nursery ends, and nothing may be started there."""
        self._sender.hang_up()

    # Reports

    async def listen(self) -> None:
        """Pass on what comes, until the end."""
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                if not self._read():
                    return
            except BlockingIOError:
                continue

    async def empty_arena(self) -> None:
        """Give the memory of large bodies back whenever there have been none for a while."""
        arena = self._arena
        while True:
            await self._has_large.wait()
            uses = -1
            # A worker that has nothing in hand writes nothing there.
            while uses != arena.uses or self._handed:
                uses = arena.uses
                await trio.sleep(_QUIET_TIME)
            self._has_large = trio.Event()
            arena.empty()

    def end(self) -> None:
        """The worker is dead: pass on what it had sent, and send nothing more."""
        self._sender.hang_up()
        try:
            while self._read():
                pass
        except BlockingIOError:  # a process that it has started holds the other end
            pass
        # Whoever has ended is in cycles, and collected late.
        self._buffer = memoryview(b"")
        if self._has_started:
            self._on_look(self._handed)  # for what it has not rung

    def check(self, report: Sequence[Any]) -> None:
        """Raise `WireError` if this cannot be the report of a job's end now."""
        seq, status, begun, ran = report[:4]
        if not (
            status in _OF_JOBS
            and 1 <= seq <= self._last_seq
            and 0 <= ran < math.inf
            and 0 <= begun < math.inf
        ):
            raise WireError

    def _check_header(self, fields: tuple[Any, ...]) -> None:
        """Raise `WireError` if this cannot be the begin of a report, whose body is to come."""
        seq, status, *_, size = fields
        if status in _OF_STARTS:
            self._check_start(seq, status)
        elif status == Status.POST:
            self._check_post(seq, size)
        else:  # doorbells have no body to wait for
            self.check(fields)
        if size > self._max_task_size + _OVERHEAD:
            raise WireError

    def _fetch(self, fields: tuple[Any, ...]) -> bytes:
        """The body of a report that is elsewhere, which was checked."""
        self.check(fields)
        where = fields[-1]
        if size_at(where) > self._max_task_size + _OVERHEAD:
            raise WireError
        body = self._arena.report_at(where)
        self._fetched += 1
        self._has_large.set()
        return body

    def _check_start(self, seq: int, status: int) -> None:
        if seq != 0 or status not in _OF_STARTS or self._has_started:
            raise WireError

    def _check_cancelled(self, seq: int) -> None:
        if seq not in self._cancelled:
            raise WireError

    def _check_post(self, seq: int, size: int) -> None:
        if seq not in self._handed or size > self._max_task_size:
            raise WireError

    def _read(self) -> bool:
        """Read once and pass on what came; False at the end.

        Raises:
          BlockingIOError: if nothing is there now.
        """
        try:
            size = self._sock.recv_into(self._buffer)
        except ConnectionError:
            return False
        if not size:
            return False
        self.heard_at = monotonic()
        if not self._stream.is_garbled:
            try:
                reports: list[Report] = self._stream.feed(bytes(self._buffer[:size]))
                if self._fetched:
                    self._arena.has_read(self._fetched)
                    self._fetched = 0
                self._take(reports)
            except WireError:
                self._stream.is_garbled = True
            if self._stream.is_garbled:
                self._on_garbled()
        return True

    def _take(self, reports: list[Report]) -> None:
        if not self._has_started:
            if not reports:
                return
            seq, status, _, _, body = reports.pop(0)
            self._check_start(seq, status)
            self._has_started = True
            self._on_start(status, body)
        self._on_look(self._handed)
        at = 0
        try:
            last_seq = self._last_seq
            for index, (seq, status, begun, ran, _) in enumerate(reports):
                # Nearly all are this; what `check` says of it, without a call.
                if status == _OK and 1 <= seq <= last_seq and 0 <= ran < _INF and 0 <= begun < _INF:
                    continue
                if status >= _POST:
                    self._pass_on(reports[at:index])
                    at = index + 1
                    self._hear(reports[index])
                    continue
                self.check(reports[index])
                if status == _CANCELLED:
                    self._check_cancelled(seq)
        except WireError:
            self._pass_on(reports[at:index])
            raise
        self._pass_on(reports[at:] if at else reports)

    def _hear(self, report: Report) -> None:
        """Hear of something that is not the end of a job."""
        seq, status, _, _, body = report
        if status == Status.POST:
            self._check_post(seq, len(body))
            self._on_posted(seq, body)
        elif status != Status.PROGRESS or seq != 0 or body:
            raise WireError

    def _pass_on(self, reports: Sequence[Report]) -> None:
        if reports:
            seqs = [report[0] for report in reports]
            self._handed.difference_update(seqs)
            self._arena.reported(seqs)
            if self._cancelled:
                self._cancelled.difference_update(seqs)
            self._on_reports(reports)
