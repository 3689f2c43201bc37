"""How the peers on asyncio run."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

BACKLOG: Final = 2048
"""Enough that no load generator waits to be accepted."""


def run(main: Callable[[], Coroutine[object, None, None]]) -> None:
    """Run ``main`` on asyncio's loop, or on that of uvloop if the command line says so."""
    if "--uvloop" in sys.argv[1:]:
        import uvloop  # noqa: PLC0415  # it need not be there otherwise

        uvloop.run(main())
    else:
        asyncio.run(main())
