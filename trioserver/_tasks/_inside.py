"""What runs inside a task worker process.

`task_worker_main` is the one long call that trio-parallel makes there. It connects to the
dispatcher's socket, says who it is, maps its flight recorder, opens the app, and then runs orders
one after the other until it is told to stop or killed.

Nothing that an app raises, returns or does to pickle may end the loop: each task is guarded by
itself, and only records of ours go out (trio-parallel would raise a task's SystemExit in the
server).

No trio, no attrs: a worker that imports them starts four times as slowly.
"""

from __future__ import annotations

import inspect
import os
import pickle
import socket
import sys
import traceback
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Final, NoReturn

from trioserver._errors import summary_of
from trioserver._importing import instantiate, load_object, own_traceback
from trioserver._tasks._lifeline import is_forked, keep_from_children
from trioserver._tasks._recorder import Recorder
from trioserver._tasks._values import Task
from trioserver._tasks._wire import (
    HELLO,
    ORDER,
    REPORT,
    Failure,
    Kind,
    Order,
    RecordStream,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    OnTask = Callable[[Task], object]

_RECEIVE_SIZE: Final = 256 * 1024
# A result that took this long to make goes out at once: one more system call is nothing to it.
SEND_AT_ONCE_AFTER: Final = 0.001
# Their pickles come back as they went, so they need no trial.
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})


def task_worker_main(address: str, token: bytes, worker_id: int, spec: str) -> None:
    """Serve the dispatcher that listens on ``address`` until it says stop; never returns.

    Nothing may be raised out of here either: trio-parallel would raise it in the server.
    """
    try:
        _serve(address, token, worker_id, spec)
    except _Disconnected:  # the server kills what is left of us, and the page has the rest
        _leave(1)
    except BaseException as exc:  # noqa: BLE001  # a signal handler of the app's can raise between tasks
        try:
            sys.stderr.write(_traceback_text(exc))
        finally:
            _leave(1)
    _leave(0)


def _serve(address: str, token: bytes, worker_id: int, spec: str) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(address)
    keep_from_children(sock.fileno())
    sock.sendall(HELLO.pack(token, os.getpid()))
    _, (page_fd,), _, _ = socket.recv_fds(sock, 1, 1)
    recorder = Recorder(page_fd)
    os.close(page_fd)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what a task prints must not die with a killed worker
            stream.reconfigure(line_buffering=True)
    try:
        app = instantiate(load_object(spec))
        on_task: OnTask = app.on_task  # type: ignore[attr-defined]  # the server has checked it
        on_start = getattr(app, "on_task_worker_start", None)
        on_stop = getattr(app, "on_task_worker_stop", None)
        if on_start is not None:
            on_start(worker_id)
    except BaseException as exc:  # noqa: BLE001  # whatever it is, the server must hear of it
        _send(sock, Status.START_FAILED, _traceback_text(exc).encode(errors="backslashreplace"))
        _leave(1)
    _send(sock, Status.READY, b"")
    _Loop(sock, recorder, worker_id, on_task).run()
    if on_stop is not None:
        try:
            on_stop(worker_id)
        except BaseException:  # noqa: BLE001  # the worker leaves anyway; say why it was not clean
            traceback.print_exc()
            _leave(1)


class _Disconnected(Exception):
    """The dispatcher cannot be reached: a task has closed the socket, or the server is gone."""


class _Loop:
    """Takes orders, runs them, and sends reports, many at a time where they are short."""

    def __init__(
        self, sock: socket.socket, recorder: Recorder, worker_id: int, on_task: OnTask
    ) -> None:
        self._sock = sock
        self._recorder = recorder
        self._worker_id = worker_id
        self._on_task = on_task
        self._stream: RecordStream[Order] = RecordStream(ORDER)
        self._orders: deque[Order] = deque()

    def run(self) -> None:
        """Until an order says stop; a dispatcher that is gone means that we are killed anyway."""
        orders, begin = self._orders, self._recorder.begin
        while True:
            if not orders:
                self._flush()
                self._receive()
                continue
            seq, task_id, attempt, kind, body = orders.popleft()
            if kind == Kind.STOP:
                self._flush()
                return
            begun = monotonic()
            if begin(seq, begun):
                status, answer = run_order(
                    self._on_task, self._worker_id, task_id, attempt, kind, body
                )
                if is_forked():  # a child that the task forked came back here; the worker goes on
                    _leave(0)
                self._report(seq, status, begun, monotonic() - begun, answer)
            else:
                self._report(seq, Status.SKIPPED, begun, 0.0, b"")

    def _receive(self) -> None:
        while not self._orders:
            try:
                data = self._sock.recv(_RECEIVE_SIZE)
            except OSError as exc:
                _raise_if_disconnected(exc)
                raise
            if not data:
                raise _Disconnected
            self._orders.extend(self._stream.feed(data))

    def _report(self, seq: int, status: int, begun: float, ran: float, body: bytes) -> None:
        record = REPORT.pack(seq, status, begun, ran, len(body)) + body
        if not self._recorder.publish(record):
            self._flush()
            if not self._recorder.publish(record):  # larger than the page: sent whole, at once
                self._send(record)
                return
        if ran >= SEND_AT_ONCE_AFTER:
            self._flush()

    def _flush(self) -> None:
        reports = self._recorder.published()
        if reports:
            self._send(reports)
            reports.release()
            self._recorder.clear()

    def _send(self, data: bytes | memoryview) -> None:
        try:
            self._sock.sendall(data)
        except OSError as exc:
            _raise_if_disconnected(exc)
            raise


def _raise_if_disconnected(exc: OSError) -> None:
    """Tell what the socket says from the `TimeoutError` of an app's signal handler."""
    if exc.errno is not None:
        raise _Disconnected from exc


def run_order(
    on_task: OnTask, worker_id: int, task_id: int, attempt: int, kind: int, body: bytes
) -> tuple[Status, bytes]:
    """Run one order; status and body of the report about it, whatever the user's code does."""
    try:
        if kind == Kind.CALL:
            fn, args = pickle.loads(body)
            value = fn(*args)
        else:
            value = on_task(Task(task_id, pickle.loads(body), worker_id, attempt))
        return Status.OK, _pack_result(value)
    except BaseException as exc:  # noqa: BLE001  # rule: each task is guarded by itself
        return Status.FAILED, _pack_failure(exc)


def _pack_result(value: object) -> bytes:
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError("the task returned a coroutine; it was not awaited")
    try:
        body = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        if type(value) not in _PLAIN:
            pickle.loads(body)
    except BaseException as exc:  # unpickling runs code of the user's, which may even exit
        raise TypeError(
            f"the task's result of type {type(value).__name__} cannot be pickled: {summary_of(exc)}"
        ) from exc
    return body


def _pack_failure(exc: BaseException) -> bytes:
    try:
        pickled = pickle.dumps(exc, pickle.HIGHEST_PROTOCOL)
        if type(pickle.loads(pickled)) is not type(exc):
            pickled = b""
    except BaseException:  # noqa: BLE001  # its words are what is left of it
        pickled = b""
    return Failure(summary_of(exc), _traceback_text(exc), pickled).pack()


def _traceback_text(exc: BaseException) -> str:
    try:
        # The first frames are ours, and say nothing to the user.
        tb = own_traceback(exc.__traceback__)
        return "".join(traceback.format_exception(type(exc), exc, tb))
    except BaseException as broken:  # noqa: BLE001  # a class can break even this
        return f"<the traceback cannot be shown: {summary_of(broken)}>\n"


def _send(sock: socket.socket, status: Status, body: bytes) -> None:
    sock.sendall(REPORT.pack(0, status, 0.0, 0.0, len(body)) + body)


def _leave(code: int) -> NoReturn:
    """End the process now: threads that a task has left running must not hold it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, S112  # closed, full, None, or of the app's own making
            continue
    os._exit(code)
