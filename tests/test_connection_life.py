"""A connection's life from id to on_close, and the exact size of what it accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from net import (
    LINES,
    Seen,
    each_carrier,
    each_tcp,
    logged,
    receive_all,
    receive_exactly,
    reset,
    serving,
)

from trioserver._net._framing import LengthFraming

if TYPE_CHECKING:
    from net import Net

    from trioserver._net._connection import Connection
    from trioserver._net._framing import Framing

LIMIT = 1000


async def echo(stream: Connection, frame: bytes) -> None:
    await stream.send_frame(frame)


@each_carrier
@pytest.mark.parametrize("framing", [LINES, LengthFraming()], ids=["lines", "length"])
async def test_the_limit_is_exact(
    carrier: str, framing: Framing, caplog: pytest.LogCaptureFixture
) -> None:
    """A frame of max_length bytes is served; one byte more closes, with one line that says so."""
    seen = Seen()
    fits = framing.encode(b"x" * LIMIT)
    async with serving(
        carrier, on_receive=echo, on_close=seen.on_close, framing=framing, max_length=LIMIT
    ) as net:
        client = net.connect()
        await client.send_all(fits)
        assert await receive_exactly(client, len(fits)) == fits
        await client.send_all(framing.encode(b"x" * (LIMIT + 1)) + framing.encode(b"after"))
        assert await receive_all(client) == b""
        await seen.wait(f"frame of {LIMIT + 1} bytes exceeds max_length {LIMIT}")

    (line,) = logged(caplog)
    assert line.startswith("connection 1 from ")
    assert line.endswith(f" is closed: frame of {LIMIT + 1} bytes exceeds max_length {LIMIT}")


@each_carrier
async def test_a_large_frame_is_refused_before_its_body_comes(carrier: str) -> None:
    """A length that is too large closes at once, not after the client has sent so much."""
    async with serving(carrier, on_receive=echo, framing=LengthFraming(), max_length=LIMIT) as net:
        client = net.connect()
        await client.send_all((10**9).to_bytes(4, "big"))
        assert await receive_all(client) == b""


@each_carrier
async def test_ids_are_never_used_again(carrier: str) -> None:
    """They count from 1, also when earlier connections are gone."""
    seen = Seen()

    async def on_connect(stream: Connection) -> None:
        await trio.lowlevel.checkpoint()
        seen.add(stream.id)

    async with serving(
        carrier, on_connect=on_connect, on_receive=echo, on_close=seen.on_close
    ) as net:
        for number in range(1, 4):
            client = net.connect()
            await seen.wait(number)
            await client.send_eof()
            assert await receive_all(client) == b""
        assert net.connections.all() == ()
    assert [event for event in seen if isinstance(event, int)] == [1, 2, 3]


@each_tcp
@pytest.mark.parametrize(
    "how", ["end of data", "reset", "raises", "connect raises", "aclose", "from outside", "stop"]
)
async def test_on_close_runs_once(carrier: str, how: str) -> None:
    """However a connection ends, and after everything else; it is not among the open ones then."""
    seen = Seen()

    async def on_connect(stream: Connection) -> None:
        await trio.lowlevel.checkpoint()
        seen.add("connect")
        if how == "connect raises":
            raise ValueError

    async def on_receive(stream: Connection, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        seen.add("receive")
        if how == "raises":
            raise ValueError
        if how == "aclose":
            await stream.aclose()

    async def on_close(stream: Connection) -> None:
        await trio.lowlevel.checkpoint()
        assert stream not in net.connections.all()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"too late")
        await stream.aclose()
        seen.add("close")

    async with serving(
        carrier, on_connect=on_connect, on_receive=on_receive, on_close=on_close, may_fail=True
    ) as net:
        client = net.connect()
        if how != "connect raises":
            await client.send_all(b"x\n")
            await seen.wait("receive")
        await _end(how, client, net)
        if how != "stop":
            await seen.wait("close")
            await trio.testing.wait_all_tasks_blocked()

    expected = ["connect", "close"] if how == "connect raises" else ["connect", "receive", "close"]
    assert list(seen) == expected


async def _end(how: str, client: trio.abc.HalfCloseableStream, net: Net) -> None:
    """End the client's connection from outside of its callbacks, if that is ``how``."""
    if how == "end of data":
        await client.send_eof()
    elif how == "reset":
        reset(client)
    elif how == "from outside":
        for connection in net.connections.all():
            await connection.aclose()
