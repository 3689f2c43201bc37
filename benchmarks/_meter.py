"""Time, CPU time and operations, of which figures are made."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from benchmarks._apart import marked_here
from benchmarks._cores import cpu_seconds
from benchmarks._suite import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence


class Meter:
    """Runs from its making on, and counts the CPU time of all processes of this measurement."""

    def __init__(self) -> None:
        self._cpu = _cpu_here()
        self._began = time.perf_counter()

    def rate(self, operations: int) -> Figure:
        """So many operations since then: how many a second."""
        seconds = time.perf_counter() - self._began
        return Figure(operations / seconds, self.cpu(operations))

    def cpu(self, operations: int) -> float:
        """CPU time of each operation, in µs."""
        return (_cpu_here() - self._cpu) / operations * 1e6


def _cpu_here() -> float:
    total = 0.0
    for pid in marked_here():
        with suppress(OSError):  # it has ended meanwhile
            total += cpu_seconds([pid])
    return total


def quantile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all do not exceed."""
    return sorted(values)[round((len(values) - 1) * share)]
