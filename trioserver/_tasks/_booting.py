"""Ctrl-C while task workers boot.

From a process's start until `_lifeline.prepare_process` there are up to 200 ms in which a
terminal's Ctrl-C, sent to the whole group, would end a worker with a traceback. A new process
inherits which signals are held back from the thread that starts it. So this thread, and with it
the new threads in which trio-parallel starts processes, holds SIGINT back until all have booted;
one that came is delivered then. Threads that have been idle in Trio's cache are not new, so this is
certain at the first boot only: at a reload, and after a death, a Ctrl-C may still meet a process in
that moment.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

BOOT_TIME: Final = 5.0
"""Seconds that a Ctrl-C is held back at the most, should a process not boot."""


@contextmanager
def hold_interrupt() -> Iterator[None]:
    """Hold SIGINT back from this thread, and from those that it starts."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if signal.SIGINT not in held:  # another server may be starting here, too
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
