"""What tasks do, for us and for all peers; the task workers of peers load no more than this."""

from __future__ import annotations

import time
from typing import Any


def same(value: Any) -> Any:
    """Nothing but give it back."""
    return value


def nap(seconds: float) -> float:
    """Wait, as for a disk or a database; when it began, on the system's monotonic clock."""
    began = time.monotonic()
    time.sleep(seconds)
    return began
