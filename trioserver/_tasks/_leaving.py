"""How a task worker process ends by itself.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from trioserver._tasks._lifeline import is_forked


def leave(code: int) -> NoReturn:
    """End the process now: threads that a task has left running must not hold it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, S112  # closed, full, None, or of the app's own making
            continue
    os._exit(code)


def leave_if_forked() -> None:
    """End a child that a task has forked and that came back out of it; the worker goes on."""
    if is_forked():
        leave(0)
