"""Signals that come before there is anything to stop.

The standard library only: this is imported before anything that takes its time.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class StoppedAtStart(SystemExit):
    """A signal ended the start. A class of its own, since an app's module may exit too."""


def leave_on_signals() -> None:
    """From now on, a signal ends the process quietly, with exit code 0."""
    for signum in STOP_SIGNALS:
        signal.signal(signum, _leave)


def _leave(_signum: int, _frame: object) -> NoReturn:
    raise StoppedAtStart(0)


@contextmanager
def signals_at_rest() -> Iterator[None]:
    """Give the caller of `run` its signal handlers back."""
    handlers = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS}
    leave_on_signals()
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            if handler is not None:  # None: not Python's, so it cannot be given back
                signal.signal(signum, handler)
