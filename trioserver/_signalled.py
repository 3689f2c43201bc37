"""A server as the business of a whole process: signals, what the service manager hears, exit code.

One process and a manager with many look the same here: something that serves, and `Controls`.
"""

from __future__ import annotations

import logging
import resource
import signal
import sys
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import trio

from trioserver._collecting import collecting_seldom
from trioserver._errors import AppError, TrioserverError
from trioserver._guard import signals_are_received
from trioserver._logs import log_to_stderr, print_whole_lines
from trioserver._refusals import WRONG, print_traceback, refuse
from trioserver._signal_table import SignalTable
from trioserver._signals import END_SIGNALS, SIGNALS, early_reloads
from trioserver._titles import set_title
from trioserver._watching import reload_on_change

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from trioserver._control import ControlListener
    from trioserver._controls import Controls
    from trioserver._notifying import Notifier
    from trioserver._settings import Settings
    from trioserver._stopping import Stopping

T_co = TypeVar("T_co", covariant=True)

logger = logging.getLogger("trioserver.server")

_OWN_DESCRIPTORS: Final = 64
"""What a process has open beside its connections and its children."""
_CHILD_DESCRIPTORS: Final = 8
"""What it has open for each child."""


class Serving(Protocol[T_co]):
    """Serves until the stop; ``started()`` with what it is then called by."""

    async def __call__(self, *, task_status: trio.TaskStatus[T_co]) -> None: ...


def run_process(
    serve: Callable[[Sequence[int]], Awaitable[int]],
    settings: Settings,
    title: str,
    afterwards: Callable[[Sequence[int]], object] | None = None,
) -> int:
    """Run ``serve`` as the business of this process; the exit code.

    Args:
      serve: Called with the signals that have come so far; returns the exit code.
      settings: Those in force.
      title: What process lists call this one.
      afterwards: Called after a regular end, with all signals that nobody has read.
    """
    # Until Trio receives signals they are noted; so is one that its receiver has not read and
    # raises once more when it closes.
    early: list[int] = []
    for signum in SIGNALS:
        signal.signal(signum, lambda number, _frame: early.append(number))
    early += early_reloads
    early_reloads.clear()
    signals_are_received.set(True)
    try:
        print_whole_lines()
        log_to_stderr(settings.log_level)
        set_title(title)
        with collecting_seldom():
            code = trio.run(serve, early)
        if afterwards is not None:
            afterwards(early)
    except TrioserverError as exc:
        _refuse_start(exc)
        return WRONG
    except (Exception, BaseExceptionGroup):  # a group may be of anything
        logger.exception("the server failed")
        return 1
    else:
        return code
    finally:
        # A process that is about to end anyway must neither die of a signal nor print a traceback.
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)


def ends(early: Sequence[int]) -> bool:
    """Whether one of these signals ends a process."""
    return any(signum in END_SIGNALS for signum in early)


async def serve_signalled(
    serve: Serving[T_co],
    controls: Controls,
    stopping: Stopping,
    notifier: Notifier,
    control: ControlListener | None,
    watched: Sequence[str],
    name: str,
    signals: AsyncIterator[int],
    early: Sequence[int],
) -> T_co | None:
    """Serve, and do what signals ask for.

    Args:
      serve: Serves.
      controls: What signals drive when it has started.
      stopping: Asked for a stop when it is ended at once, so that what is cut is counted.
      notifier: Hears that it is ready.
      control: Is served from then on to the very end.
      watched: Files whose change asks for a reload.
      name: Of the app.
      signals: As they come.
      early: Those that came before.

    Returns:
      What ``serve`` has started with, None if it was ended before.

    Raises:
      TrioserverError: if it could not start.
    """
    started: T_co | None = None
    refusal: TrioserverError | None = None
    async with trio.open_nursery() as nursery:

        def end_at_once() -> None:
            nursery.cancel_scope.cancel()
            stopping.request()

        table = SignalTable(end_at_once, early)
        nursery.start_soon(table.serve, signals)
        nursery.start_soon(notifier.run_watchdog)
        async with trio.open_nursery() as serving:
            try:
                started = await serving.start(serve)
                notifier.ready(f"serving {name}")
                table.is_ready(controls)
                if control is not None:
                    nursery.start_soon(control.serve, controls)
                if watched:
                    nursery.start_soon(reload_on_change, watched, controls)
            except TrioserverError as exc:  # still bare; beyond the nurseries it is in groups
                refusal = exc
        nursery.cancel_scope.cancel()
    if refusal is not None:
        raise refusal
    return started


def raise_descriptor_limit(settings: Settings, connections: int, children: int) -> None:
    """Let the process open what it needs, as far as the system lets it.

    Args:
      settings: Those in force.
      connections: How many it may have.
      children: How many processes it starts.
    """
    wanted = connections + _OWN_DESCRIPTORS + _CHILD_DESCRIPTORS * children
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


def _refuse_start(exc: TrioserverError) -> None:
    """Say on stderr what keeps the server from starting."""
    if isinstance(exc, AppError):
        if exc.remote_traceback:
            sys.stderr.write(exc.remote_traceback.rstrip() + "\n")
        if exc.__cause__ is not None:  # raised by the app itself
            print_traceback(exc.__cause__)
    refuse(str(exc))
