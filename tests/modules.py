"""Modules that tests write, and that are gone afterwards."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def directory_of_modules(directory: Path) -> Iterator[Path]:
    """Make ``directory`` the current one, and forget what was imported meanwhile."""
    before, path, modules = os.getcwd(), sys.path.copy(), set(sys.modules)
    os.chdir(directory)
    try:
        yield directory
    finally:
        os.chdir(before)
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and file.startswith(str(directory)):
                del sys.modules[name]
        importlib.invalidate_caches()
