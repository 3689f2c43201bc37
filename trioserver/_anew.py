"""Reloading a single process: it executes itself anew, and keeps its listening sockets open.

1. A fresh interpreter loads the new code. If that is broken, nothing else happens.
2. The process stops accepting, and clients that come wait in the backlog; what it has begun, it
   brings to its end (`Stopping.retire`).
3. When all is over it executes the same command line once more. What the new program must know
   reaches it as an `Inheritance`. The process id stays.

Signals are held back from the moment at which nobody hears them to that in which the new program
does. They are held back per thread, and threads of Trio's may still be there; one that comes to
these is noted in a pipe.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing.resource_tracker
import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

from trioserver._errors import AppError
from trioserver._inheritance import START_DIRECTORY, Inheritance, bequeath, disown
from trioserver._logs import log_app_error
from trioserver._processes._checking import check_anew
from trioserver._processes._plan import plan_of
from trioserver._signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioserver._app import App
    from trioserver._settings import Settings
    from trioserver._stopping import Stopping

logger = logging.getLogger("trioserver.server")

_TRACKER_TIME: Final = 1.0
"""Seconds that multiprocessing's resource tracker may take to end."""


@final
class Anew:
    """Reloads the process that an app is served in.

    Args:
      app: The app.
      settings: Those in force.
      stopping: The server's.
    """

    def __init__(self, app: App, settings: Settings, stopping: Stopping) -> None:
        self._app = app
        self._settings = settings
        self._stopping = stopping

    async def start(self) -> None:
        """Have the server hand over if the new code loads; log why not if it does not."""
        try:
            _refuse_if_gone()
            await check_anew(plan_of(self._app, self._settings))
        except AppError as exc:
            log_app_error(logger, "no reload, the old code goes on", exc)
        else:
            self._stopping.retire()


def _refuse_if_gone() -> None:
    """A program that Python has read from stdin cannot be read once more."""
    main = sys.modules["__main__"]
    is_file = os.path.isfile(getattr(main, "__file__", None) or "")
    if not is_file and main.__spec__ is None and "-c" not in sys.orig_argv:
        raise AppError("the program is not in a file, so it cannot be executed anew")


def execute_anew(inheritance: Inheritance, is_stopped: Callable[[], bool]) -> None:
    """Replace this program by itself; returns if a signal has come that stops it.

    Args:
      inheritance: What the new program gets.
      is_stopped: Whether one has come before now.

    Raises:
      OSError: if that cannot be.
    """
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    os.set_blocking(writing, False)
    # First of all, so that whatever `is_stopped` does not know yet is in the pipe or held back.
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        if is_stopped():
            return
        logger.info("executing anew")
        bequeath(inheritance._replace(signals_fd=reading))
        if START_DIRECTORY:  # the command line may name files from there
            os.chdir(START_DIRECTORY)
        # As far as the app can tell, its process ends here.
        atexit._run_exitfuncs()  # noqa: SLF001
        _end_resource_tracker()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # itself
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        signal.set_wakeup_fd(-1)
        disown()
        os.close(reading)
        os.close(writing)


def _end_resource_tracker() -> None:
    """End the process that multiprocessing has for each program, or it would become a zombie."""
    tracker = getattr(multiprocessing.resource_tracker, "_resource_tracker")  # noqa: B009
    fd, pid = getattr(tracker, "_fd", None), getattr(tracker, "_pid", None)
    if fd is None or pid is None:
        return
    with suppress(OSError):
        os.close(fd)
        tracker._fd = None  # noqa: SLF001  # it is not closed twice
        deadline = time.monotonic() + _TRACKER_TIME
        # What a task has left behind may hold the tracker's pipe open.
        while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.001)
