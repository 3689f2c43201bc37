"""How a fresh interpreter is called, so that it is like this one."""

from __future__ import annotations

import subprocess
import sys


def interpreter_flags() -> list[str]:
    """The flags that this one was started with (``-O``, ``-W``, ``-X``, ``-P``, ``-I``, ...)."""
    # What multiprocessing calls for its own processes.
    flags: list[str] = getattr(subprocess, "_args_from_interpreter_flags")()  # noqa: B009
    return flags


def python_command(*arguments: str) -> list[str]:
    """Run `trioserver._processes.__main__` with ``arguments``."""
    return [sys.executable, *interpreter_flags(), "-m", "trioserver._processes", *arguments]
