"""Senders that wait for a client who does not read, when the connection closes under them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from net import Seen, each_socket, each_tcp, logged, receive_all, reset, serving

if TYPE_CHECKING:
    from net import Net

    from trioserver._net._connection import Connection

MUCH = 20_000_000
"""Bytes; more than any kernel keeps for a client."""


async def blocked(net: Net, seen: Seen) -> trio.abc.HalfCloseableStream:
    """A client whose callback waits for it to read."""
    client = net.connect()
    await client.send_all(b"x\n")
    await seen.wait("sending")
    await trio.testing.wait_all_tasks_blocked()
    return client


@each_socket
@pytest.mark.parametrize("wait", ["send_all", "wait_send_all_might_not_block", "send_eof"])
async def test_aclose_wakes_a_sender(carrier: str, wait: str) -> None:
    """A callback that waits for its client to read gets ClosedResourceError, and is over."""
    seen = Seen()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        if wait != "send_all":
            with trio.CancelScope() as scope:
                stream.start_soon(_cancel_when_blocked, scope)
                await stream.send_all(bytes(MUCH))
        seen.add("sending")
        try:
            if wait == "send_all":
                await stream.send_all(bytes(MUCH))
            else:
                await getattr(stream, wait)()
        except trio.ClosedResourceError:
            seen.add("woken")
            raise

    async with serving(carrier, on_receive=on_receive, on_close=seen.on_close) as net:
        client = await blocked(net, seen)
        (connection,) = net.connections.all()
        await connection.aclose()
        await seen.wait("woken")
        # What had begun to leave still does.
        assert await receive_all(client) == bytes(MUCH)
        await seen.wait("closed by the server")


@each_socket
async def test_a_call_that_has_not_begun_is_dropped(carrier: str) -> None:
    """Of senders in a line only the one whose first bytes have left is sent."""
    seen = Seen()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"1" * MUCH)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(stream.send_all, b"2")
            seen.add("sending")

    async with serving(carrier, on_receive=on_receive) as net:
        client = await blocked(net, seen)
        (connection,) = net.connections.all()
        await connection.aclose()
        assert await receive_all(client) == b"1" * MUCH


@each_tcp
async def test_replies_are_not_dropped(carrier: str) -> None:
    """What calls that have returned had sent leaves, also while the client does not read."""
    seen = Seen()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        if frame == b"much":
            with trio.CancelScope() as scope:
                stream.start_soon(_cancel_when_blocked, scope)
                await stream.send_all(b"1" * MUCH)
            return
        await stream.aclose()

    async def on_connect(stream: Connection) -> None:
        await stream.send_all(b"0")

    async with serving(
        carrier, on_receive=on_receive, on_connect=on_connect, on_close=seen.on_close
    ) as net:
        client = net.connect()
        await client.send_all(b"much\nclose\n")
        assert await receive_all(client) == b"0" + b"1" * MUCH


@each_socket
async def test_a_background_sender_whose_client_closes(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What start_soon runs ends with its client's leaving, and that is no failure."""
    seen = Seen()

    async def pump(stream: Connection) -> None:
        seen.add("sending")
        while True:
            await stream.send_all(bytes(100_000))

    async def on_receive(stream: Connection, frame: bytes) -> None:
        stream.start_soon(pump, stream)
        await seen.wait("sending")

    async with serving(carrier, on_receive=on_receive, on_close=seen.on_close) as net:
        client = await blocked(net, seen)
        if carrier in {"epoll", "plain"}:
            reset(client)
            await seen.wait("reset by the client")
        else:
            await client.send_eof()
            await receive_all(client)
            await seen.wait("closed by the client")

    assert logged(caplog) == []


async def _cancel_when_blocked(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked()
    scope.cancel()
