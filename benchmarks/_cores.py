"""Which process runs on which core, and how much CPU time processes have used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_CORES: Final = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
SERVER_CORE: Final = _CORES[0] if len(_CORES) > 1 else None
LOAD_CORE: Final = _CORES[1] if len(_CORES) > 1 else None


def pin(core: int | None, pid: int = 0) -> None:
    """Keep ``pid``, or this process, and what it starts from now on, on ``core``; None: any."""
    if core is not None:
        os.sched_setaffinity(pid, {core})


def unpin(pid: int = 0) -> None:
    """Let ``pid``, or this process, run wherever this program was allowed to."""
    if _CORES:
        os.sched_setaffinity(pid, _CORES)


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time that the processes have used until now, without their children."""
    ticks = 0
    for pid in pids:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])
    return ticks / os.sysconf("SC_CLK_TCK")
