"""How long one measurement takes; in the environment, so that processes that cases start know."""

from __future__ import annotations

import os
from typing import Final

_NAME: Final = "BENCHMARK_SECONDS"
_USUAL: Final = 1.0
_QUICK: Final = 0.2


def seconds() -> float:
    """For how long a case is to measure a peer in one round, without starting and warming up."""
    return float(os.environ.get(_NAME, _USUAL))


def be_quick() -> None:
    """Measure so shortly from now on that figures mean little, to see whether all of it works."""
    os.environ.setdefault(_NAME, str(_QUICK))


def is_quick() -> bool:
    """Whether measurements are that short, so that cases may also count to less."""
    return seconds() <= _QUICK
