"""What a peer needs, and may not be there."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SWOOLE: Final = "Swoole"
"""The name of it among the peers of whatever case."""


class PeerMissingError(Exception):
    """A peer cannot be measured on this machine; the text says what it lacks."""


def need_module(name: str) -> None:
    """Raises `PeerMissingError` if the top-level module ``name`` cannot be imported."""
    if importlib.util.find_spec(name) is None:
        raise PeerMissingError(f"no module named {name!r}")


def need_program(name: str) -> str:
    """The path of a program.

    Raises:
      PeerMissingError: if it is not on PATH.
    """
    path = shutil.which(name)
    if path is None:
        raise PeerMissingError(f"no program {name!r} on PATH")
    return path


def need_swoole() -> str:
    """The path of a PHP that has Swoole.

    Raises:
      PeerMissingError: if there is no PHP, or one without.
    """
    php = need_program("php")
    found = subprocess.run([php, "-m"], capture_output=True, text=True, check=True)  # noqa: S603
    if "swoole" not in found.stdout.split():
        raise PeerMissingError("`php -m` does not list swoole")
    return php


def missing(needs: Mapping[str, Callable[[], object]]) -> dict[str, str]:
    """The peers that cannot be measured here, and what they lack.

    Args:
      needs: What raises `PeerMissingError`, for each peer by its name.
    """
    found = {}
    for name, need in needs.items():
        try:
            need()
        except PeerMissingError as exc:
            found[name] = str(exc)
    return found
