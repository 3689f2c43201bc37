"""Signals that come before there is anything to stop or to reload.

The standard library only: this is imported before anything that takes its time.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
END_SIGNALS: Final = (*STOP_SIGNALS, signal.SIGQUIT)
"""Those that end a process, gracefully or at once; before it is ready that is the same."""
RELOAD_SIGNALS: Final = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
SIGNALS: Final = (*END_SIGNALS, *RELOAD_SIGNALS)
"""All that a server listens to; `_signal_table` says what they mean."""

early_reloads: Final[list[int]] = []
"""Requests to reload that came too early, for whoever will be able to."""


class StoppedAtStart(SystemExit):
    """A signal ended the start. A class of its own, since an app's module may exit too."""


def leave_on_signals() -> None:
    """From now on, a signal ends the process quietly, with exit code 0, or is kept for later."""
    for signum in END_SIGNALS:
        signal.signal(signum, _leave)
    for signum in RELOAD_SIGNALS:
        signal.signal(signum, _keep)


def _leave(_signum: int, _frame: object) -> NoReturn:
    raise StoppedAtStart(0)


def _keep(signum: int, _frame: object) -> None:
    early_reloads.append(signum)


@contextmanager
def signals_at_rest() -> Iterator[None]:
    """Give the caller of `run` its signal handlers back."""
    handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
    leave_on_signals()
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            if handler is not None:  # None: not Python's, so it cannot be given back
                signal.signal(signum, handler)
