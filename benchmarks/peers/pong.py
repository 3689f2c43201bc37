"""Our app: ``python -m trioserver benchmarks.peers.pong``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers._lines import REPLY, TERMINATOR
from trioserver import EofFraming

if TYPE_CHECKING:
    from trioserver import Connection

framing = EofFraming(TERMINATOR)


async def on_receive(stream: Connection, data: bytes) -> None:  # noqa: ARG001  # by contract
    """Answer."""
    await stream.send_all(REPLY)
