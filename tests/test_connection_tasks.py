"""What a connection has started ends with it, and a peer that reads nothing cannot hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from net import Seen, each_carrier, logged, receive_all, receive_exactly, serving

from trioserver._net._life import CLOSE_TIME

if TYPE_CHECKING:
    from trioserver._net._connection import Connection


@each_carrier
async def test_background_tasks_end_with_the_connection(carrier: str) -> None:
    """What start_soon runs is cancelled when the connection closes, before on_close."""
    seen = Seen()

    async def background(stream: Connection) -> None:
        seen.add("background")
        await stream.send_all(b"hello")
        try:
            await trio.sleep_forever()
        finally:
            seen.add("ended")

    async def on_receive(stream: Connection, frame: bytes) -> None:
        stream.start_soon(background, stream)
        await seen.wait("background")

    async def on_close(stream: Connection) -> None:
        seen.add("on_close")
        with pytest.raises(trio.ClosedResourceError):
            stream.start_soon(background, stream)
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"too late")

    async with serving(carrier, on_receive=on_receive, on_close=on_close) as net:
        client = net.connect()
        await client.send_all(b"x\n")
        assert await receive_exactly(client, 5) == b"hello"
        await client.send_eof()
        assert await receive_all(client) == b""

    assert list(seen) == ["background", "ended", "on_close"]


async def test_a_background_task_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    """It costs its connection, and is logged under its name."""
    seen = Seen()

    async def background() -> None:
        await trio.lowlevel.checkpoint()
        raise SystemExit(1)

    async def on_receive(stream: Connection, frame: bytes) -> None:
        stream.start_soon(background, name="the odd one")
        await trio.lowlevel.checkpoint()

    async with serving(on_receive=on_receive, on_close=seen.on_close, may_fail=True) as net:
        client = net.connect()
        await client.send_all(b"x\n")
        assert await receive_all(client) == b""
        await seen.wait("the odd one raised SystemExit")

    assert logged(caplog) == ["the odd one raised"]


async def test_a_client_that_reads_nothing_cannot_hold_a_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What it does not take in time is dropped, and on_close runs."""
    seen = Seen()

    async def stall() -> None:
        await trio.sleep_forever()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        stream.start_soon(stream.send_all, b"never taken")
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()

    async with serving("memory", on_receive=on_receive, on_close=seen.on_close) as net:
        client, theirs = trio.testing.memory_stream_pair()
        theirs.send_stream.wait_send_all_might_not_block_hook = stall
        net.connections.add_stream(theirs)
        await client.send_all(b"x\n")
        began = trio.current_time()
        await seen.wait("closed by the server")
        assert trio.current_time() - began <= 2 * CLOSE_TIME
