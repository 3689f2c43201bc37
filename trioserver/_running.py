"""Running a server as one process, and its reload."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from trioserver._alone import Alone
from trioserver._anew import Anew, execute_anew
from trioserver._control import bind_control
from trioserver._inheritance import Inheritance, take_inheritance
from trioserver._net._binding import bind_all
from trioserver._notifying import Notifier
from trioserver._pid_file import open_pid_file
from trioserver._processes._plan import own_files
from trioserver._serving import run_event_worker
from trioserver._signalled import ends, raise_descriptor_limit, run_process, serve_signalled
from trioserver._signals import SIGNALS
from trioserver._stopping import Stopping
from trioserver._tasks._local import LocalTaskWorkers
from trioserver._watching import check_watching

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioserver._app import App
    from trioserver._net._listeners import Listener
    from trioserver._pid_file import PidFile
    from trioserver._server import Server
    from trioserver._settings import Settings


def run_app(app: App, settings: Settings) -> int:
    """Serve until a signal stops it; the exit code. A reload does not return."""
    process = _Process(app, settings)
    try:
        return run_process(
            process.serve, settings, f"server ({app.name})", process.execute_if_handed_over
        )
    finally:
        process.remove_files()


class _Process:
    """A server that is one process, from its addresses to what it leaves to its next program."""

    def __init__(self, app: App, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._stopping = Stopping(settings.max_wait_time)
        self._listeners: Sequence[Listener] = ()
        self._pid_file: PidFile | None = None
        # For the program that this process is to execute, if that is how it ended.
        self._will: Inheritance | None = None

    async def serve(self, early: Sequence[int]) -> int:
        """Serve until signals stop it; the exit code."""
        settings = self._settings
        with trio.open_signal_receiver(*SIGNALS) as signals:
            if ends(early):
                return 0
            if settings.reload:
                check_watching()
            raise_descriptor_limit(settings, settings.max_conn, settings.task_worker_num)
            before = take_inheritance()
            sockets = () if before is None else before.sockets
            with (
                bind_all(settings.bind, sockets) as self._listeners,
                open_pid_file(settings.pid_file) as self._pid_file,
                bind_control(settings.control) if settings.control else nullcontext() as control,
            ):
                notifier = Notifier()
                whole = self._whole(before, notifier)
                server = await serve_signalled(
                    partial(self._run, whole),
                    whole,
                    self._stopping,
                    notifier,
                    control,
                    own_files() if settings.reload else (),
                    self._app.name,
                    signals,
                    early,
                )
                if server is not None and self._stopping.hands_over:
                    self._will = self._hand_over(whole, self._pid_file)
        return 1 if server is not None and server.cut else 0

    def execute_if_handed_over(self, early: Sequence[int]) -> None:
        """Execute the next program, unless a signal has ended the server meanwhile."""
        if self._will is not None:
            execute_anew(self._will, lambda: ends(early))

    def remove_files(self) -> None:
        """Nobody takes over what was handed over."""
        if self._will is not None and self._pid_file is not None:
            for listener in self._listeners:
                listener.remove()
            self._pid_file.remove()

    def _whole(self, before: Inheritance | None, notifier: Notifier) -> Alone:
        app, settings, stopping = self._app, self._settings, self._stopping
        workers = None
        if settings.task_worker_num:
            workers = LocalTaskWorkers(app, settings, stopping)
        return Alone(
            stopping,
            workers,
            Anew(app, settings, stopping).start,
            notifier,
            stream_id=1 if before is None else before.stream_id,
            task_id=0 if before is None else before.task_id,
        )

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
