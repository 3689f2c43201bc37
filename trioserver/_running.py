"""Running a server as one process: signals, logging, limits, exit code, and its reload."""

from __future__ import annotations

import logging
import resource
import signal
import sys
from typing import TYPE_CHECKING, Final

import attrs
import trio

from trioserver._alone import Alone
from trioserver._anew import Anew, execute_anew
from trioserver._errors import AppError, TrioserverError
from trioserver._guard import signals_are_received
from trioserver._inheritance import Inheritance, take_inheritance
from trioserver._logs import log_to_stderr
from trioserver._net._listeners import bind_all
from trioserver._notifying import Notifier
from trioserver._pid_file import open_pid_file
from trioserver._refusals import WRONG, print_traceback, refuse
from trioserver._serving import run_event_worker
from trioserver._signal_table import SignalTable
from trioserver._signals import END_SIGNALS, SIGNALS, early_reloads
from trioserver._stopping import Stopping
from trioserver._tasks._local import LocalTaskWorkers
from trioserver._titles import set_title

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from trioserver._app import App
    from trioserver._net._listeners import Listener
    from trioserver._pid_file import PidFile
    from trioserver._server import Server
    from trioserver._settings import Settings

logger = logging.getLogger("trioserver.server")

_OWN_DESCRIPTORS: Final = 64
"""What a server has open beside its connections."""
_WORKER_DESCRIPTORS: Final = 8
"""What it has open for each task worker."""


def run_app(app: App, settings: Settings) -> int:
    """Serve until a signal stops it; the exit code. A reload does not return."""
    # Until Trio receives signals they are noted; so is one that its receiver has not read and
    # raises once more when it closes.
    early: list[int] = []
    for signum in SIGNALS:
        signal.signal(signum, lambda number, _frame: early.append(number))
    early += early_reloads
    early_reloads.clear()
    process = _Process(app, settings)
    try:
        prepare_output(settings)
        set_title(f"server ({app.name})")
        _raise_descriptor_limit(settings)
        code = trio.run(process.serve, early)
        if process.will is not None:
            execute_anew(process.will, lambda: _ends(early))
    except TrioserverError as exc:
        refuse_start(exc)
        return WRONG
    except (Exception, BaseExceptionGroup):  # a group may be of anything
        logger.exception("the server failed")
        return 1
    else:
        return code
    finally:
        process.remove_files()
        # A process that is about to end anyway must neither die of a signal nor print a traceback.
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)


def prepare_output(settings: Settings) -> None:
    """Make stdout and stderr a log."""
    for stream in (sys.stdout, sys.stderr):
        # What callbacks print is a log, also in a pipe, and shares it with what tasks print:
        # whole lines, though Python be told to write every piece at once (PYTHONUNBUFFERED).
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, write_through=False)
    log_to_stderr(settings.log_level)


def refuse_start(exc: TrioserverError) -> None:
    """Say on stderr what keeps the server from starting."""
    if isinstance(exc, AppError):
        if exc.remote_traceback:
            sys.stderr.write(exc.remote_traceback.rstrip() + "\n")
        if exc.__cause__ is not None:  # raised by the app itself
            print_traceback(exc.__cause__)
    refuse(str(exc))


class _Process:
    """A server that is one process, from its addresses to what it leaves to its next program."""

    def __init__(self, app: App, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._notifier = Notifier()
        self._stopping = Stopping(settings.max_wait_time)
        self._listeners: Sequence[Listener] = ()
        self._pid_file: PidFile | None = None
        self.will: Inheritance | None = None
        """For the program that this process is to execute, if that is how it ended."""

    async def serve(self, early: Sequence[int]) -> int:
        """Serve until signals stop it; the exit code."""
        signals_are_received.set(True)
        with trio.open_signal_receiver(*SIGNALS) as signals:
            if _ends(early):
                return 0
            before = take_inheritance()
            sockets = () if before is None else before.sockets
            with (
                bind_all(self._settings.bind, sockets) as self._listeners,
                open_pid_file(self._settings.pid_file) as self._pid_file,
            ):
                whole = self._whole(before)
                server = await self._serve_until_signalled(whole, signals, early)
                if server is not None and self._stopping.hands_over:
                    self.will = self._hand_over(whole, self._pid_file)
        return 1 if server is not None and server.cut else 0

    def remove_files(self) -> None:
        """Nobody takes over what was handed over."""
        if self.will is not None and self._pid_file is not None:
            for listener in self._listeners:
                listener.remove()
            self._pid_file.remove()

    def _whole(self, before: Inheritance | None) -> Alone:
        app, settings, stopping = self._app, self._settings, self._stopping
        workers = None
        if settings.task_worker_num:
            workers = LocalTaskWorkers(app, settings, stopping)
        return Alone(
            stopping,
            workers,
            Anew(app, settings, stopping).start,
            self._notifier,
            stream_id=1 if before is None else before.stream_id,
            task_id=0 if before is None else before.task_id,
        )

    async def _serve_until_signalled(
        self, whole: Alone, signals: AsyncIterator[int], early: Sequence[int]
    ) -> Server | None:
        """Serve; the server, unless it was ended before it was ready."""
        server: Server | None = None
        refusal: TrioserverError | None = None
        async with trio.open_nursery() as nursery:

            def end_at_once() -> None:
                nursery.cancel_scope.cancel()
                self._stopping.request()

            table = SignalTable(end_at_once, early)
            nursery.start_soon(table.serve, signals)
            nursery.start_soon(self._notifier.run_watchdog)
            async with trio.open_nursery() as serving:
                try:
                    server = await serving.start(self._run, whole)
                    self._notifier.ready(f"serving {self._app.name}")
                    table.is_ready(whole)
                except TrioserverError as exc:  # still bare; beyond the nurseries it is in groups
                    refusal = exc
            nursery.cancel_scope.cancel()
        if refusal is not None:
            raise refusal
        return server

    async def _run(  # noqa: ASYNC128  # the event worker calls started()
        self, whole: Alone, *, task_status: trio.TaskStatus[Server]
    ) -> None:
        await run_event_worker(
            self._app,
            self._settings,
            self._listeners,
            whole.workers,
            self._stopping,
            whole=whole,
            task_status=task_status,
        )

    def _hand_over(self, whole: Alone, pid_file: PidFile) -> Inheritance:
        values = attrs.asdict(self._settings)
        return Inheritance(
            sockets=[listener.hand_over() for listener in self._listeners],
            pid_file=pid_file.hand_over(),
            settings=values,
            stream_id=next(whole.stream_ids),
            task_id=next(whole.task_ids),
            signals_fd=-1,
        )


def _ends(early: Sequence[int]) -> bool:
    return any(signum in END_SIGNALS for signum in early)


def _raise_descriptor_limit(settings: Settings) -> None:
    """Let the process open what ``max_conn`` connections need, as far as the system lets it."""
    wanted = settings.max_conn + _OWN_DESCRIPTORS + _WORKER_DESCRIPTORS * settings.task_worker_num
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= wanted:
        return
    reachable = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
        limit = reachable
    except (OSError, OverflowError, ValueError):  # some systems allow less than they say
        logger.debug("the limit of open files stays", exc_info=True)
    if limit < wanted:
        logger.warning(
            "max_conn %d needs %d open files, but the limit is %d", settings.max_conn, wanted, limit
        )
