"""Time, CPU time and operations, of which figures are made."""

from __future__ import annotations

import os
import resource
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from benchmarks._apart import marked_here
from benchmarks._cores import busy_seconds, cpu_seconds
from benchmarks._suite import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence


_UNDISTURBED: Final = 0.1
"""The share of all cores that other programs may use; what counts by seconds is spoilt by more."""


class Meter:
    """Runs from its making on, and counts the CPU time of all processes of this measurement."""

    def __init__(self) -> None:
        self._others = _cpu_elsewhere()
        self._cpu = _cpu_here()
        self._began = time.perf_counter()

    def rate(self, operations: int) -> Figure:
        """So many operations since then: how many a second."""
        seconds = time.perf_counter() - self._began
        return Figure(operations / seconds, self.cpu(operations), is_disturbed=self.is_disturbed)

    @property
    def is_disturbed(self) -> bool:
        """Whether programs that do not belong to this measurement were busy meanwhile."""
        elapsed = time.perf_counter() - self._began
        used = _cpu_elsewhere() - self._others
        return used > _UNDISTURBED * elapsed * len(os.sched_getaffinity(0))

    def cpu(self, operations: int) -> float:
        """CPU time of each operation, in µs."""
        return (_cpu_here() - self._cpu) / operations * 1e6


def _cpu_here() -> float:
    total = 0.0
    for pid in marked_here():
        with suppress(OSError):  # it has ended meanwhile
            total += cpu_seconds([pid])
    return total


def _cpu_elsewhere() -> float:
    """What was used by none of the processes of this measurement, nor by those that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return busy_seconds() - _cpu_here() - ended.ru_utime - ended.ru_stime


def quantile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all do not exceed."""
    return sorted(values)[round((len(values) - 1) * share)]
