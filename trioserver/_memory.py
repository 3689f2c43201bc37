"""How much memory a process holds."""

from __future__ import annotations

import os


def rss_of(pid: int | None) -> int | None:
    """Bytes that a process holds in memory (RSS); None where that cannot be known."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):  # no such system, or no such process any more
        return None
