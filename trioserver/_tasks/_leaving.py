"""How a task worker process ends by itself.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End the process now: threads that a task has left running must not hold it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, S112  # closed, full, None, or of the app's own making
            continue
    os._exit(code)
