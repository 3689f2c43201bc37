"""What runs inside a task worker process.

`task_worker_main` is the one long call that trio-parallel makes there. It connects to the
dispatcher's socket, says who it is, maps its flight recorder, is ready to show its stack, opens the
app, and then runs orders until it is told to stop or killed: one after the other (`_sync_loop`), or
several at once where the app's ``on_task`` is a coroutine function (`_async_loop`).

Nothing that an app raises, returns or does to pickle may end the loop: each task is guarded by
itself (`_running_orders`), and only records of ours go out (trio-parallel would raise a task's
SystemExit in the server).

No trio, no attrs: a worker that imports them starts four times as slowly. `_async_loop` is imported
only for those apps that have Trio anyway.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

from trioserver._importing import instantiate, is_async, load_object
from trioserver._stack_signal import show_stack_on_signal
from trioserver._tasks._arena import WorkerArena
from trioserver._tasks._leaving import leave
from trioserver._tasks._lifeline import keep_from_children
from trioserver._tasks._link import Disconnected, Link
from trioserver._tasks._recorder import Recorder
from trioserver._tasks._running_orders import traceback_text
from trioserver._tasks._sync_loop import run_one_by_one
from trioserver._tasks._wire import HELLO, REPORT, Status
from trioserver._titles import set_title


def task_worker_main(
    address: str,
    token: bytes,
    worker_id: int,
    spec: str,
    max_task_size: int,
    task_concurrency: int,
) -> NoReturn:
    """Serve the dispatcher that listens on ``address`` until it says stop; never returns.

    Nothing may be raised out of here either: trio-parallel would raise it in the server.
    """
    try:
        _serve(address, token, worker_id, spec, max_task_size, task_concurrency)
    except Disconnected:  # the server kills what is left of us, and the page has the rest
        leave(1)
    except BaseException as exc:  # noqa: BLE001  # a signal handler of the app's can raise between tasks
        try:
            sys.stderr.write(traceback_text(exc))
        finally:
            leave(1)


def _serve(
    address: str,
    token: bytes,
    worker_id: int,
    spec: str,
    max_task_size: int,
    task_concurrency: int,
) -> NoReturn:
    set_title(f"task worker {worker_id} ({spec})")
    _give_way()
    link = _connect(address, token, max_task_size)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what a task prints must not die with a killed worker
            stream.reconfigure(line_buffering=True, write_through=False)
    try:
        app = instantiate(load_object(spec))
        on_task = app.on_task  # type: ignore[attr-defined]  # the server has checked it
        on_start = getattr(app, "on_task_worker_start", None)
        on_stop = getattr(app, "on_task_worker_stop", None)
        if on_start is not None:
            on_start(worker_id)
        is_task_async = is_async(on_task)
        if is_task_async:
            from trioserver._tasks._async_loop import run_together  # noqa: PLC0415  # see above
    except BaseException as exc:  # noqa: BLE001  # whatever it is, the server must hear of it
        _say(link, Status.START_FAILED, traceback_text(exc).encode(errors="backslashreplace"))
        leave(1)
    _say(link, Status.READY, b"")
    if is_task_async:
        run_together(link, worker_id, on_task, task_concurrency)
    else:
        run_one_by_one(link, worker_id, on_task)
    if on_stop is not None:
        try:
            on_stop(worker_id)
        except BaseException:  # noqa: BLE001  # the worker leaves anyway; say why it was not clean
            traceback.print_exc()
            leave(1)
    leave(0)  # from here, where the socket is still in use: one that is dropped open is a warning


def _give_way() -> None:
    """Interrupt nobody by waking up: event workers must stay quick, whatever tasks do.

    A share of the processor that is as large as anybody's stays (``SCHED_BATCH``, Linux). Without
    it a worker that is handed tiny tasks takes the event worker off its core for each message,
    whose cost for a task that is a third more then.
    """
    if hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with suppress(PermissionError):  # in a sandbox; it is for speed alone
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _connect(address: str, token: bytes, max_task_size: int) -> Link:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(address)
    keep_from_children(sock.fileno())
    sock.sendall(HELLO.pack(token, os.getpid()))
    _, (page_fd, stack_fd), _, _ = socket.recv_fds(sock, 1, 2)
    keep_from_children(stack_fd)
    show_stack_on_signal(stack_fd)
    recorder, arena = Recorder(page_fd), WorkerArena(page_fd)
    os.close(page_fd)
    return Link(sock, recorder, arena, max_task_size)


def _say(link: Link, status: Status, body: bytes) -> None:
    link.send(REPORT.pack(0, status, 0.0, 0.0, len(body)) + body)
