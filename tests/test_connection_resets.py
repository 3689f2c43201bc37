"""A client that is gone ends its callbacks, and is no failure of theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from net import Seen, each_carrier, logged, receive_all, reset, serving

if TYPE_CHECKING:
    from trioserver._net._connection import Connection


@pytest.mark.parametrize("carrier", ["epoll"])
async def test_a_reset_cancels_the_callback_at_once(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that waits for something else is cancelled, and nothing is logged."""
    seen = Seen()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        seen.add("runs")
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            seen.add("cancelled")
            raise

    async with serving(carrier, on_receive=on_receive, on_close=seen.on_close) as net:
        client = net.connect()
        await client.send_all(b"x\n")
        await seen.wait("runs")
        reset(client)
        await seen.wait("reset by the client")

    assert list(seen) == ["runs", "cancelled", "reset by the client"]
    assert logged(caplog) == []


async def test_a_half_close_cancels_nothing() -> None:
    """A client that only ends its side leaves a callback that runs alone."""
    seen = Seen()
    go_on = trio.Event()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        seen.add("runs")
        await go_on.wait()
        await stream.send_all(b"done")

    async with serving(on_receive=on_receive) as net:
        client = net.connect()
        await client.send_all(b"x\n")
        await seen.wait("runs")
        await client.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        assert await receive_all(client) == b"done"


@each_carrier
async def test_sending_to_a_client_that_left(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that learns so by sending raises BrokenResourceError, which is no failure."""
    seen = Seen()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        try:
            while True:
                await stream.send_all(b"x" * 100_000)
        except trio.BrokenResourceError:
            seen.add("broken")
            raise

    async with serving(carrier, on_receive=on_receive, on_close=seen.on_close) as net:
        client = net.connect()
        await client.send_all(b"x\n")
        await client.receive_some(1)
        await trio.aclose_forcefully(client)
        await seen.wait("reset by the client")

    assert logged(caplog) == []


@each_carrier
async def test_another_task_finds_the_client_gone(carrier: str) -> None:
    """When someone else's send breaks, the callback that waits for something is cancelled too."""
    seen = Seen()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        seen.add("runs")
        await trio.sleep_forever()

    async with serving(carrier, on_receive=on_receive, on_close=seen.on_close) as net:
        client = net.connect()
        await client.send_all(b"x\n")
        await seen.wait("runs")
        (connection,) = net.connections.all()
        await trio.aclose_forcefully(client)
        # Broken when this send finds it out, closed when the connection has ended by then.
        gone = (trio.BrokenResourceError, trio.ClosedResourceError)
        with pytest.raises(gone):  # noqa: PT012  # the second at the latest
            while True:
                await connection.send_all(b"x" * 1000)
                await trio.testing.wait_all_tasks_blocked()
        await seen.wait("reset by the client")


async def test_a_reset_seen_by_several_tasks_of_a_callback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Stream errors in the group that a nursery raises are no failure either."""
    seen = Seen()

    async def on_stream(stream: Connection) -> None:
        async def read() -> None:
            await stream.receive_some()

        async def write() -> None:
            while True:
                await stream.send_all(b"x" * 100_000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(write)

    async with serving(on_stream=on_stream, on_close=seen.on_close) as net:
        client = net.connect()
        await client.receive_some(1)
        reset(client)
        await seen.wait("reset by the client")

    assert logged(caplog) == []


async def test_a_stream_error_of_another_stream_is_a_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While the client is there, a BrokenResourceError is of something else, and logged."""

    async def on_receive(stream: Connection, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError("a database")

    async with serving(on_receive=on_receive, may_fail=True) as net:
        client = net.connect()
        await client.send_all(b"x\n")
        assert await receive_all(client) == b""

    assert logged(caplog) == ["on_receive of connection 1 raised"]
