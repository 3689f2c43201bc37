"""Which process runs on which core, and how much CPU time processes have used."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CORES: Final = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
SERVER_CORE: Final = _CORES[0] if len(_CORES) > 1 else None
LOAD_CORE: Final = _CORES[1] if len(_CORES) > 1 else None
_CPU_CLOCK_OF_ALL_THREADS: Final = 2  # CPUCLOCK_SCHED in Linux's posix-timers.h


def pin(core: int | None, pid: int = 0) -> None:
    """Keep ``pid``, or this process, and what it starts from now on, on ``core``; None: any."""
    if core is not None:
        os.sched_setaffinity(pid, {core})


def unpin(pid: int = 0) -> None:
    """Let ``pid``, or this process, run wherever this program was allowed to."""
    if _CORES:
        os.sched_setaffinity(pid, _CORES)


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """What starts here stays on ``core``; this process is on it meanwhile."""
    pin(core)
    try:
        yield
    finally:
        unpin()


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time that the processes have used until now, without their children."""
    # /proc/PID/stat counts in ticks of 10 ms, which is too coarse for a short measurement; this is
    # what clock_getcpuclockid(3) returns.
    clocks = ((~pid << 3) | _CPU_CLOCK_OF_ALL_THREADS for pid in pids)
    return sum(time.clock_gettime(clock) for clock in clocks)


def kept_waiting(pid: int) -> float:
    """Seconds in which the main thread of ``pid`` was to run, and something else ran instead."""
    _, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(waited) / 1e9


def busy_seconds() -> float:
    """Seconds that all cores have worked until now, or that other machines had of them."""
    with Path("/proc/stat").open() as stat:
        _, user, nice, system, _, _, irq, softirq, stolen, *_ = stat.readline().split()
    ticks = sum(map(int, (user, nice, system, irq, softirq, stolen)))
    return ticks / os.sysconf("SC_CLK_TCK")
