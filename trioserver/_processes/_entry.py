"""The first moments of an event worker's process.

Rules:

1. Until it knows who it is and dies with its manager, it imports nothing that takes its time.
2. Its manager decides when it ends. Ctrl-C and what is meant for the manager do nothing here; a
   SIGTERM of its own has it replaced without a loss (see `_inside`).
"""

from __future__ import annotations

import os
import signal
import socket
from typing import Final

from trioserver._processes._boot import Boot
from trioserver._stack_signal import show_stack_on_signal
from trioserver._tasks._lifeline import die_with

_IGNORED: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def run_event_worker_process() -> int:
    """Be an event worker, as the manager at the other end of stdin says; the exit code."""
    for signum in _IGNORED:
        # A handler and not SIG_IGN, which programs that the app starts would inherit.
        signal.signal(signum, _ignore)
    signal.signal(signal.SIGTERM, _leave)
    sock = _take_stdin()
    try:
        boot, fds = Boot.receive(sock)
    except EOFError:
        return 1
    questions, lifeline, room, stack, *listening = fds
    die_with(lifeline)
    show_stack_on_signal(stack)
    from trioserver._processes._inside import run  # noqa: PLC0415  # rule 1

    return run(boot, sock, socket.socket(fileno=questions), room, listening)


def _take_stdin() -> socket.socket:
    """The channel, which stdin is no more: what the app reads there must not be ours."""
    sock = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return sock


def _ignore(_signum: int, _frame: object) -> None:
    """Nothing: see rule 2."""


def _leave(_signum: int, _frame: object) -> None:
    """Before there is anything to lose."""
    os._exit(0)
