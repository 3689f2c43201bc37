"""What is said between the dispatcher's process and one worker: orders out, reports in.

Nothing that comes is believed before it is checked, since a task may have written to its worker's
descriptors.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import trio

from trioserver._tasks._wire import (
    ORDER,
    REPORT,
    Kind,
    RecordStream,
    Report,
    Status,
    WireError,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from trioserver._tasks._job import Job

_RECEIVE_SIZE: Final = 256 * 1024
_OF_JOBS: Final = frozenset({Status.OK, Status.FAILED, Status.SKIPPED})
_OF_STARTS: Final = frozenset({Status.READY, Status.START_FAILED})


class Conversation:
    """Talks with one worker until it is dead.

    Args:
      sock: Its connection, non-blocking; closed by whoever opened it.
      nursery: Where what the socket has no room for is written.
      on_start: Called once, with `Status.READY` or with `Status.START_FAILED` and a traceback.
      on_reports: Called with the reports of ended jobs as they come.
      on_garbled: Called when what comes are no reports; nothing can be read from then on.
    """

    def __init__(
        self,
        sock: socket.socket,
        nursery: trio.Nursery,
        on_start: Callable[[int, bytes], None],
        on_reports: Callable[[Sequence[Report]], None],
        on_garbled: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._nursery = nursery
        self._on_start = on_start
        self._on_reports = on_reports
        self._on_garbled = on_garbled
        self._has_started = False
        self._is_over = False
        # The last job that was handed over.
        self._last_seq = 0
        self._stream: RecordStream[Report] = RecordStream(REPORT, self.check)
        self._unsent: deque[memoryview] = deque()

    # Orders

    def hand(self, jobs: Sequence[Job]) -> None:
        """Hand over ``jobs``, in one message; never waits."""
        self._last_seq = jobs[-1].seq
        self._send(
            b"".join(
                [
                    ORDER.pack(job.seq, job.id, job.attempt, job.kind, len(job.payload))
                    + job.payload
                    for job in jobs
                ]
            )
        )

    def tell_to_stop(self) -> None:
        """Have the worker leave after what it was given."""
        self._send(ORDER.pack(0, 0, 0, Kind.STOP, 0))

    def _send(self, data: bytes) -> None:
        if self._is_over:
            return  # its successor will get what it was given
        sent = 0
        if not self._unsent:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                pass
            except OSError:
                return  # it is dying, which listening will tell
            if sent < len(data):
                self._nursery.start_soon(self._write_unsent)
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:])

    async def _write_unsent(self) -> None:
        while self._unsent:
            await trio.lowlevel.wait_writable(self._sock)
            try:
                sent = self._sock.send(self._unsent[0])
            except BlockingIOError:
                continue
            except OSError:
                return  # it is dying; what is unsent stays so
            rest = self._unsent[0][sent:]
            if rest:
                self._unsent[0] = rest
            else:
                self._unsent.popleft()

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

    def end(self) -> None:
        """The worker is dead: pass on what it had sent, and send nothing more."""
        self._is_over = True
        try:
            while self._read():
                pass
        except BlockingIOError:  # a process that it has started holds the other end
            return

    def check(self, fields: tuple[Any, ...]) -> None:
        """Raise `WireError` if this cannot be the begin of a report now."""
        seq, status, begun, ran, *_ = fields
        if status in _OF_JOBS:
            is_right = 1 <= seq <= self._last_seq and 0 <= ran < math.inf and 0 <= begun < math.inf
        else:
            is_right = seq == 0 and not self._has_started and status in _OF_STARTS
        if not is_right:
            raise WireError

    def _read(self) -> bool:
        """Read once and pass on what came; False at the end.

        Raises:
          BlockingIOError: if nothing is there now.
        """
        try:
            data = self._sock.recv(_RECEIVE_SIZE)
        except ConnectionError:
            return False
        if not data:
            return False
        if not self._stream.is_garbled:
            try:
                self._take(self._stream.feed(data))
            except WireError:
                self._stream.is_garbled = True
            if self._stream.is_garbled:
                self._on_garbled()
        return True

    def _take(self, reports: list[Report]) -> None:
        if not self._has_started and reports:
            self.check(reports[0])
            _, status, _, _, body = reports.pop(0)
            self._has_started = True
            self._on_start(status, body)
        for index, report in enumerate(reports):
            try:
                self.check(report)
            except WireError:
                self._on_reports(reports[:index])
                raise
        if reports:
            self._on_reports(reports)
