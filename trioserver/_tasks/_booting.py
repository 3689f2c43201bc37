"""Ctrl-C while task workers boot.

From a process's start until `_lifeline.prepare_process` there are up to 200 ms in which a
terminal's Ctrl-C, sent to the whole group, would end a worker with a traceback. A new process
inherits which signals are held back from the thread that starts it. So this thread, and with it
the new threads in which trio-parallel starts processes, holds SIGINT back until all have booted;
one that came is delivered then.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

_BOOT_TIME: Final = 5.0
"""Seconds that a Ctrl-C is held back at the most, should a process not boot."""


async def hold_interrupt(
    booted: Sequence[trio.Event],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Hold SIGINT back, from ``started()`` until all have ``booted``."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        task_status.started()
        with trio.move_on_after(_BOOT_TIME):
            for one in booted:
                await one.wait()
    finally:
        if signal.SIGINT not in held:  # another server may be starting here, too
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
