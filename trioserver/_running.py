"""Running one event worker as a process: signals, logging, limits, exit code."""

from __future__ import annotations

import logging
import resource
import signal
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

import trio

from trioserver._alone import Alone
from trioserver._control import bind_control
from trioserver._errors import AppError, TrioserverError
from trioserver._guard import signals_are_received
from trioserver._logs import log_to_stderr
from trioserver._refusals import WRONG, print_traceback, refuse
from trioserver._serving import serve
from trioserver._signals import STOP_SIGNALS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioserver._app import App
    from trioserver._server import Server
    from trioserver._settings import Settings

logger = logging.getLogger("trioserver.server")

_ECHO: Final = 0.02
"""Seconds in which the same request to stop may come once more by another way."""
_OWN_DESCRIPTORS: Final = 64
"""What a server has open beside its connections."""
_WORKER_DESCRIPTORS: Final = 9
"""What it has open for each task worker."""


def run_app(app: App, settings: Settings) -> int:
    """Serve until a signal stops it; the exit code."""
    # Until Trio receives signals they are noted; so is one that its receiver has not read and
    # raises once more when it closes.
    early: list[int] = []
    for signum in STOP_SIGNALS:
        signal.signal(signum, lambda number, _frame: early.append(number))
    try:
        for stream in (sys.stdout, sys.stderr):
            # What callbacks print is a log, also in a pipe, and shares it with what tasks print:
            # whole lines, though Python be told to write every piece at once (PYTHONUNBUFFERED).
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(line_buffering=True, write_through=False)
        log_to_stderr(settings.log_level)
        _raise_descriptor_limit(settings)
        return trio.run(_serve_until_signalled, app, settings, early)
    except TrioserverError as exc:
        if isinstance(exc, AppError):
            if exc.remote_traceback:
                sys.stderr.write(exc.remote_traceback.rstrip() + "\n")
            if exc.__cause__ is not None:  # raised by the app itself
                print_traceback(exc.__cause__)
        refuse(str(exc))
        return WRONG
    except (Exception, BaseExceptionGroup):  # a group may be of anything
        logger.exception("the server failed")
        return 1
    finally:
        # A process that is about to end anyway must neither die of a signal nor print a traceback.
        for signum in STOP_SIGNALS:
            signal.signal(signum, signal.SIG_IGN)


async def _serve_until_signalled(app: App, settings: Settings, early: Sequence[int]) -> int:
    server: Server | None = None
    refusal: TrioserverError | None = None
    signals_are_received.set(True)
    with (
        trio.open_signal_receiver(*STOP_SIGNALS) as signals,
        bind_control(settings.control) if settings.control else nullcontext() as control,
    ):
        if early:
            return 0
        async with trio.open_nursery() as nursery:

            async def stop_when_signalled() -> None:
                asked = False
                async for signum in signals:
                    name = signal.Signals(signum).name
                    if asked or server is None:
                        logger.warning("%s: ending at once", name)
                        nursery.cancel_scope.cancel()
                    else:
                        logger.info("%s: stopping", name)
                        server.shutdown()
                        asked = True
                        # `timeout` and some supervisors signal the process and then its group:
                        # that is one request, not an impatient second one.
                        with trio.move_on_after(_ECHO):
                            async for _ in signals:
                                continue

            nursery.start_soon(stop_when_signalled)
            async with trio.open_nursery() as serving:
                try:
                    server = await serving.start(serve, app, settings)
                except TrioserverError as exc:  # still bare; beyond the nurseries it is in groups
                    refusal = exc
                else:
                    whole = server._whole  # noqa: SLF001  # ours
                    if control is not None and isinstance(whole, Alone):  # it always is
                        nursery.start_soon(control.serve, whole)  # which answers to the very end
            nursery.cancel_scope.cancel()
    if refusal is not None:
        raise refusal
    return 1 if server is not None and server.cut else 0


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
