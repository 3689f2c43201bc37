"""A connection keeps the contract of Trio's streams, as Trio itself checks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from net import PATIENCE, each_carrier, serving

from trioserver._pacing import Pacer

if TYPE_CHECKING:
    from trioserver._net._connection import Connection


class Handed(trio.abc.HalfCloseableStream):
    """A connection in the hands of a test; its handler returns when the test closes it."""

    def __init__(self, stream: Connection) -> None:
        self._stream = stream
        self.closed = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self.closed.set()


class AlwaysYields(Pacer):
    """Trio's check wants a scheduling point in every call, where ours has one a millisecond."""

    def is_due(self) -> bool:
        return True

    async def checkpoint(self) -> None:
        await self.give_turn()


@each_carrier
@pytest.mark.parametrize("is_first", [True, False])
async def test_half_closeable_stream(carrier: str, *, is_first: bool) -> None:
    """Sending, receiving, half-closing, closing and cancelling are what Trio's helpers expect."""
    send, receive = trio.open_memory_channel[Handed](0)

    async def on_stream(stream: Connection) -> None:
        handed = Handed(stream)
        await send.send(handed)
        # A reset cancels callbacks, but the test is not done with it then.
        with trio.fail_after(PATIENCE) as scope:
            scope.shield = True
            await handed.closed.wait()

    async with serving(carrier, on_stream=on_stream, pacer=AlwaysYields()) as net:

        async def make() -> tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]:
            client = net.connect()
            ours = await receive.receive()
            return (ours, client) if is_first else (client, ours)

        await trio.testing.check_half_closeable_stream(make, None)
