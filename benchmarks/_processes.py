"""What the system says of processes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def rss(pid: int) -> int:
    """Bytes that a process holds in memory.

    Raises:
      OSError: if there is no such process any more.
      IndexError: if it has just ended.
    """
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def bearing(mark: str) -> list[int]:
    """The processes with ``mark``, a ``NAME=VALUE``, in the environment that they began with."""
    wanted = mark.encode()
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        # Those of others cannot be read, and some end meanwhile; zombies have nothing to read.
        with suppress(OSError):
            if wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found.append(int(name))
    return found
