"""What process lists call our processes, where setproctitle is installed (the extra ``titles``)."""

from __future__ import annotations

from contextlib import suppress


def set_title(text: str) -> None:
    """Call this process ``trioserver: TEXT``."""
    with suppress(ImportError):
        from setproctitle import setproctitle  # noqa: PLC0415  # not everybody has it

        setproctitle(f"trioserver: {text}")
