"""The worker's end of the socket: orders in; reports, posts and doorbells out.

Rules:

1. What the loop reports goes by way of the flight recorder, in the loop's own thread.
2. Any thread of a task may post, ring and read. Whole records go out, one thread at a time; one
   thread at a time reads, and whatever it reads it hands to whoever waits for that.
3. That a task is over is written before its report is sent, and posts look at it with the socket in
   their hands: no post is sent behind the report of its task.
4. When a signal handler of the app's has raised out of the middle of this, nobody knows what was
   sent or read, so that the link is torn: the worker leaves as soon as its task lets it, and the
   flight recorder has the rest.

No trio, no attrs: task workers load this module. Only a post that is refused imports Trio, whose
exceptions say so.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Container  # noqa: TC003  # cheap, and needed to read signatures
from typing import Any, Final

from trioserver._tasks._arena import LARGE, WorkerArena
from trioserver._tasks._patience import Patience
from trioserver._tasks._payloads import check_size
from trioserver._tasks._recorder import Recorder  # noqa: TC001  # the same
from trioserver._tasks._task import id_of_posted
from trioserver._tasks._wire import (
    ORDER,
    REPORT,
    Kind,
    Order,
    Status,
    TaskStream,
    unpack_orders,
)

_RECEIVE_SIZE: Final = 256 * 1024
_SEND_AT: Final = 256 * 1024
"""Bytes of large results after which they are sent: who waits for them can begin to read."""
_MANY: Final = int(Kind.MANY)
_DOORBELL: Final = REPORT.pack(0, Status.PROGRESS, 0.0, 0.0, 0)


class Disconnected(Exception):
    """The dispatcher cannot be reached: a task has closed the socket, or the server is gone."""


class _Post:
    """A post whose answer is still to come."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.answer: Order | None = None


class Link:
    """What a worker says and hears (a `TaskLink`).

    Args:
      sock: Connected, and blocking.
      recorder: The worker's flight recorder.
      arena: Where large bodies lie.
      max_task_size: Bytes of a task's pickled data and result at the most.
    """

    def __init__(
        self, sock: socket.socket, recorder: Recorder, arena: WorkerArena, max_task_size: int
    ) -> None:
        self.recorder = recorder
        self._arena = arena
        # Bytes of large results that are not sent.
        self._unsent = 0
        self.max_task_size = max_task_size
        self.orders: deque[Order] = deque()
        """What was received and is still to be run, in its order."""
        self.running: Container[int] = ()
        """Seqs of the tasks that run; the loop's business."""
        self.cancellations: deque[int] = deque()
        """Seqs of tasks to be cancelled, where ``on_receive`` is set."""
        self.on_receive: Callable[[], None] | None = None
        """Called, in whichever thread, when a post has read what may be the loop's business; set by
        loops that do not wait in `receive`."""
        self._sock = sock
        self._pid = os.getpid()
        self._loop_thread = threading.get_ident()
        self._stream: TaskStream[Order] = TaskStream(ORDER, fetch=self._fetch)
        self._is_torn = False
        self._sending = threading.Lock()
        # Held to look at what follows, but not while a thread waits in `recv`.
        self._turn = threading.Condition()
        self._is_being_read = False
        # `recv` would map and unmap that much memory every time.
        self._buffer = memoryview(bytearray(_RECEIVE_SIZE))
        self._posts: list[_Post] = []
        # Progress that some thread is about to write, and whether one is to ring for it.
        self._values: deque[tuple[int, bytes]] = deque()
        self._writing = threading.Lock()
        self._must_ring = False
        self._patience = Patience()

    def fileno(self) -> int:
        """The socket's, to wait for what `receive_now` takes."""
        return self._sock.fileno()

    # Orders

    def receive(self) -> None:
        """Wait until there are orders."""
        if self._patience.begins() and self._receive_awake():
            return
        self._receive_until(lambda: self.orders)

    def _receive_awake(self) -> bool:
        """Whether orders have come in the time for which it pays to stay awake for them."""
        while self._patience.goes_on():
            if not self.receive_now():
                return False  # another thread reads, and sleeps
            if self.orders:
                self._patience.has_paid()
                return True
            os.sched_yield()
        return False

    def receive_now(self) -> bool:
        """Take what is there; False if another thread is reading, and will call ``on_receive``."""
        with self._turn:
            if self._is_being_read:
                return False
            try:
                self._take(self._sock.recv_into(self._buffer, 0, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return True
            except BaseException as exc:  # noqa: BLE001  # rule 4
                raise self._torn(exc)  # noqa: B904  # it has its cause
        return True

    def _receive_until(self, is_done: Callable[[], object]) -> None:
        with self._turn:
            while not is_done():
                if self._is_being_read:
                    self._turn.wait()
                else:
                    self._read()

    def _read(self) -> None:
        self._is_being_read = True
        self._turn.release()
        try:
            try:
                size = self._sock.recv_into(self._buffer)
            finally:
                self._turn.acquire()
                self._is_being_read = False
                self._turn.notify_all()
            self._take(size)
        except BaseException as exc:  # noqa: BLE001  # rule 4
            raise self._torn(exc)  # noqa: B904  # it has its cause
        finally:
            if self.on_receive is not None:
                self.on_receive()

    def _take(self, size: int) -> None:
        if not size:
            raise Disconnected
        for order in self._stream.feed(bytes(self._buffer[:size])):
            kind = order[3]
            if kind == _MANY:
                self.orders.extend(unpack_orders(order[4]))
            elif kind == Kind.POSTED:
                self._answered(order)
            elif kind == Kind.CANCEL and self.on_receive is not None:
                self.cancellations.append(order[0])
            else:
                self.orders.append(order)

    def _fetch(self, fields: tuple[Any, ...]) -> memoryview:
        return self._arena.order_at(fields[-1])

    def _answered(self, answer: Order) -> None:
        for post in self._posts:
            if post.seq == answer[0]:
                post.answer = answer
                self._posts.remove(post)
                return

    # Reports

    def report(self, seq: int, status: int, begun: float, ran: float, body: bytes) -> None:
        """Publish a report, to be sent with the next `flush` at the latest."""
        where = self._place(body) if len(body) >= LARGE else None
        if where is None:
            record = REPORT.pack(seq, status, begun, ran, len(body)) + body
        else:
            record = REPORT.pack(seq, status, begun, ran, where)
        if not self.recorder.publish(record):
            self.report_what_has_no_room(record)
        if self._unsent >= _SEND_AT:
            self.flush()

    def _place(self, body: bytes) -> int | None:
        where = self._arena.place(body)
        if where is None:
            self.flush()  # what lies there is to be read
        else:
            self._unsent += len(body)
        return where

    def report_what_has_no_room(self, record: bytes) -> None:
        """Report what the recorder did not publish."""
        self.flush()
        if not self.recorder.publish(record):  # larger than the page: sent whole, at once
            self.send(record)

    def flush(self) -> None:
        """Send what was reported."""
        reports = self.recorder.published()
        if reports:
            self.send(reports)
            reports.release()
            self.recorder.clear()
            self._unsent = 0

    def send(self, data: bytes | memoryview) -> None:
        """Send whole records."""
        with self._sending:
            self._send(data)
        if self._must_ring:
            self._ring()

    def _send(self, data: bytes | memoryview) -> None:
        if self._is_torn:
            raise Disconnected
        try:
            self._sock.sendall(data)
        except BaseException as exc:  # noqa: BLE001  # rule 4
            raise self._torn(exc)  # noqa: B904  # it has its cause

    def _torn(self, exc: BaseException) -> BaseException:
        """Note that ``exc`` came out of the middle of this; what to raise in its place."""
        self._is_torn = True
        # A TimeoutError of a signal handler of the app's has no errno.
        if not isinstance(exc, OSError) or exc.errno is None:
            return exc
        disconnected = Disconnected()
        disconnected.__cause__ = exc
        return disconnected

    # `TaskLink`

    def progress(self, seq: int, body: bytes) -> bool:
        self._refuse_in_fork()
        if seq not in self.running:
            return False
        # Whoever finds the locks taken leaves its value, or its wish, to who holds them: so this
        # never waits, not even where a signal handler has interrupted it and calls it again.
        self._values.append((seq, body))
        while self._values and self._writing.acquire(blocking=False):
            try:
                while self._values:
                    if self.recorder.progress(*self._values.popleft()):
                        self._must_ring = True
            finally:
                self._writing.release()
        if self._must_ring:
            self._ring()
        return True

    def _ring(self) -> None:
        while self._must_ring and self._sending.acquire(blocking=False):
            try:
                self._must_ring = False
                sent = self._sock.send(_DOORBELL, socket.MSG_DONTWAIT)
                if sent < len(_DOORBELL):
                    self._sock.sendall(_DOORBELL[sent:])
            except BlockingIOError:
                pass  # it is full, so the dispatcher will read, and look at the page then
            except BaseException as exc:  # rule 4
                if not isinstance(self._torn(exc), Disconnected):
                    raise
            finally:
                self._sending.release()

    def post(self, seq: int, body: bytes) -> int | None:
        self._refuse_in_fork()
        check_size(body, "the data", self.max_task_size)
        if threading.get_ident() == self._loop_thread:
            self.flush()  # who waits for these need not wait for the answer
        post = _Post(seq)
        with self._sending:
            if seq not in self.running:
                return None
            self._posts.append(post)
            self._send(REPORT.pack(seq, Status.POST, 0.0, 0.0, len(body)) + body)
        if self._must_ring:
            self._ring()
        self._receive_until(lambda: post.answer)
        assert post.answer is not None, "it was waited for"
        _, task_id, verdict, _, reason = post.answer
        return id_of_posted(verdict, task_id, bytes(reason).decode())

    def _refuse_in_fork(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError("only the task worker itself speaks for a task, no forked process")
