"""How a process shows its Python stack to another one, whatever it does at the time.

`faulthandler` writes it from inside a signal's handler in C: so a process answers that holds the
GIL, or sleeps in a system call, which goes on after that. See `_stacks` for who reads it.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import faulthandler
import signal
from typing import Final

STACK_SIGNAL: Final = (
    int(signal.SIGRTMIN) + 1 if hasattr(signal, "SIGRTMIN") else int(signal.SIGUSR2)
)
"""A signal that nothing else uses, where there are such."""


def show_stack_on_signal(fd: int) -> None:
    """From now on, `STACK_SIGNAL` has the main thread's stack written to ``fd``.

    Programs that are started do not inherit that, so only this process itself may be signalled.
    """
    faulthandler.register(STACK_SIGNAL, file=fd, all_threads=False, chain=False)
