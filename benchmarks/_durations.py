"""How long is measured: one number for all cases."""

from __future__ import annotations

SECONDS = 0.6
"""Of one measurement of one peer; read it as an attribute of this module, since it may be set."""
WARM_UP = 0.3
"""The share of `SECONDS` that passes under full load before measuring begins."""


def warm_up() -> float:
    """Seconds of full load before a measurement."""
    return WARM_UP * SECONDS
