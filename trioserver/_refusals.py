"""What is said on stderr when there is no start."""

from __future__ import annotations

import sys
import traceback
from typing import Final

from trioserver._importing import own_traceback

WRONG: Final = 2
"""The exit code of a start that cannot be."""


def refuse(reason: str) -> None:
    """Say why there is no start."""
    for line in reason.splitlines():
        sys.stderr.write(f"trioserver: error: {line}\n")


def print_traceback(exc: BaseException) -> None:
    """Print what the app raised, from its own files on."""
    sys.stderr.write(traceback_of(exc))


def traceback_of(exc: BaseException) -> str:
    """What the app raised, from its own files on."""
    return "".join(traceback.format_exception(type(exc), exc, own_traceback(exc.__traceback__)))
