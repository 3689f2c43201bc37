"""The smallest app: a module with one function.

python -m trioserver examples.echo
printf 'hello\n' | nc -N 127.0.0.1 9501
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trioserver import Connection


async def on_receive(stream: Connection, data: bytes) -> None:
    await stream.send_all(data)
