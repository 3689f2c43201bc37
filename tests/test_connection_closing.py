"""How connections close: who closes, what still arrives, and what close_reason and the log say."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from net import (
    PATIENCE,
    Seen,
    each_carrier,
    each_socket,
    logged,
    receive_all,
    receive_exactly,
    reset,
    serving,
)

from trioserver._net import _transport

if TYPE_CHECKING:
    from trioserver._net._connection import Connection


async def echo(stream: Connection, frame: bytes) -> None:
    await stream.send_frame(frame)


@each_carrier
async def test_end_of_data_inside_a_frame(carrier: str, caplog: pytest.LogCaptureFixture) -> None:
    """The whole frames before it are delivered, nothing of the last is, and one line says so."""
    frames = Seen()

    reason = "end of data in the middle of a frame (received 3 bytes, expected a terminator)"
    async with serving(carrier, on_receive=frames.on_receive, on_close=frames.on_close) as net:
        client = net.connect()
        await client.send_all(b"whole\npar")
        await client.send_eof()
        assert await receive_all(client) == b""
        await frames.wait(reason)

    assert list(frames) == [b"whole", reason]
    (line,) = logged(caplog)
    assert line.endswith(f"is closed: {reason}")


@each_carrier
async def test_a_broken_frame_waits_for_its_turn(
    carrier: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Frames that arrived before one that is too large are answered before the close."""
    async with serving(carrier, on_receive=echo, max_length=4) as net:
        client = net.connect()
        await client.send_all(b"ab\ncd\ntoo large\nef\n")
        assert await receive_all(client) == b"ab\ncd\n"

    (line,) = logged(caplog)
    assert line.endswith("is closed: frame of 9 bytes exceeds max_length 4")


@each_socket
async def test_last_bytes_survive_unread_input(carrier: str) -> None:
    """A client that has sent more than was read still gets our last answer, and not a reset."""

    async def on_receive(stream: Connection, frame: bytes) -> None:
        await stream.send_all(b"go away")
        await stream.aclose()

    async with serving(carrier, on_receive=on_receive) as net, trio.open_nursery() as nursery:
        client = net.connect()

        async def pour() -> None:
            while True:
                try:
                    await client.send_all(b"x\n" * 100_000)
                except trio.BrokenResourceError:
                    return

        await client.send_all(b"hello\n")
        nursery.start_soon(pour)
        assert await receive_exactly(client, 7) == b"go away"


@each_socket
async def test_much_unread_input_is_discarded_to_its_end(carrier: str) -> None:
    """A client that had sent more than one read takes sees a regular end of data, not a reset."""
    seen = Seen()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        await seen.wait("all is sent")
        await stream.send_all(b"go away")
        await stream.aclose()

    async with serving(carrier, on_receive=on_receive, on_close=seen.on_close) as net:
        client = net.connect()
        await client.send_all(b"hello\n" + b"x" * 150_000)
        await client.send_eof()
        seen.add("all is sent")
        await seen.wait("closed by the server")
        assert await receive_all(client) == b"go away"


@each_socket
async def test_a_client_that_waits_for_the_end_sees_it(
    carrier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With unread input the end of data is sent first, so the client need not close before us."""
    # Were it only this time that ends the connection, the test would run out of patience.
    monkeypatch.setattr(_transport, "_LINGER", 10 * PATIENCE)
    seen = Seen()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        await seen.wait("all is sent")
        await stream.send_all(b"go away")
        await stream.aclose()

    async with serving(carrier, on_receive=on_receive, on_close=seen.on_close) as net:
        client = net.connect()
        await client.send_all(b"hello\n" + b"x" * 150_000)
        seen.add("all is sent")
        assert await receive_all(client) == b"go away"
        await client.aclose()
        await seen.wait("closed by the server")


@each_carrier
async def test_aclose_ends_the_connection(carrier: str) -> None:
    """After aclose by a callback nothing is sent or received, and whole frames stay unhandled."""
    seen = Seen()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        seen.add(frame)
        await stream.send_all(b"last")
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(
            trio.ClosedResourceError, match=r"^this connection is closed: closed by the server$"
        ):
            await stream.send_all(b"more")
        for receive in (stream.receive_some, stream.receive_frame):
            with pytest.raises(trio.ClosedResourceError):
                await receive()

    async with serving(carrier, on_receive=on_receive, on_close=seen.on_close) as net:
        client = net.connect()
        await client.send_all(b"1\n2\n")
        assert await receive_all(client) == b"last"
        await seen.wait("closed by the server")

    assert list(seen) == [b"1", "closed by the server"]


@each_carrier
async def test_aclose_from_another_task(carrier: str) -> None:
    """A connection that waits for a frame ends when someone else closes it."""
    seen = Seen()

    async with serving(
        carrier, on_connect=seen.on_connect, on_receive=echo, on_close=seen.on_close
    ) as net:
        client = net.connect()
        await seen.wait("open")
        (connection,) = net.connections.all()
        await connection.aclose()
        assert await receive_all(client) == b""
        await seen.wait("closed by the server")


async def test_a_reset_while_idle(caplog: pytest.LogCaptureFixture) -> None:
    """It is a reason and no failure."""
    caplog.set_level(logging.DEBUG)
    reasons = Seen()

    async with serving("epoll", on_receive=echo, on_close=reasons.on_close) as net:
        client = net.connect()
        await client.send_all(b"x\n")
        await receive_exactly(client, 2)
        reset(client)
        await reasons.wait("reset by the client")

    assert logged(caplog) == []
