"""A connection's frames, replies, attributes and half-closing, over every carrier."""

from __future__ import annotations

import types
import weakref
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from net import (
    Seen,
    each_carrier,
    each_tcp,
    receive_all,
    receive_exactly,
    serving,
)

from trioserver._net._framing import FixedFraming, RawFraming

if TYPE_CHECKING:
    from trioserver._net._connection import Connection


async def echo(stream: Connection, frame: bytes) -> None:
    await stream.send_frame(frame)


@each_carrier
async def test_frames_are_handled_in_order(carrier: str) -> None:
    """Each whole frame is one call of on_receive, in the order of arrival."""
    async with serving(carrier, on_receive=echo) as net:
        client = net.connect()
        await client.send_all(b"one\ntwo\nthr")
        assert await receive_exactly(client, 8) == b"one\ntwo\n"
        await client.send_all(b"ee\n")
        assert await receive_exactly(client, 6) == b"three\n"


@each_carrier
async def test_one_callback_at_a_time(carrier: str) -> None:
    """A frame waits until on_receive has returned for the one before it."""
    seen = Seen()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        seen.add((frame, "begins"))
        await trio.lowlevel.checkpoint()
        seen.add((frame, "ends"))

    async with serving(carrier, on_receive=on_receive) as net:
        await net.connect().send_all(b"1\n2\n")
        await seen.wait((b"2", "ends"))

    assert list(seen) == [(b"1", "begins"), (b"1", "ends"), (b"2", "begins"), (b"2", "ends")]


@each_carrier
async def test_a_half_closed_client_gets_its_answers(carrier: str) -> None:
    """Frames before the end of data are handled, and what on_receive sends then still arrives."""
    reasons = Seen()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        await trio.sleep(0.01)
        await stream.send_frame(frame)

    async with serving(carrier, on_receive=on_receive, on_close=reasons.on_close) as net:
        client = net.connect()
        await client.send_all(b"a\nb\n")
        await client.send_eof()
        assert await receive_all(client) == b"a\nb\n"
        await reasons.wait("closed by the client")


async def test_attributes() -> None:
    """A connection has an id from 1, a peername, a namespace, and no close_reason while open."""
    seen = Seen()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        stream.state.count = getattr(stream.state, "count", 0) + 1
        seen.add((stream.id, stream.state.count, stream.peername, stream.close_reason))
        await stream.send_all(b".")

    async with serving("epoll", on_receive=on_receive) as net:
        first, second = net.connect(), net.connect()
        peers = []
        for client in (first, second, first):
            assert isinstance(client, trio.SocketStream)
            peers.append(client.socket.getsockname())
            await client.send_all(b"x\n")
            await client.receive_some(1)
        assert [connection.id for connection in net.connections.all()] == [1, 2]
        assert isinstance(net.connections.all()[0].state, types.SimpleNamespace)

    assert list(seen) == [
        (1, 1, peers[0], None),
        (2, 1, peers[1], None),
        (1, 2, peers[2], None),
    ]


async def test_connections_can_be_held_weakly() -> None:
    """As those of a room are: who has left is in no set any more."""
    room: weakref.WeakSet[Connection] = weakref.WeakSet()

    async def enter(stream: Connection) -> None:  # noqa: ASYNC124  # as it must be
        room.add(stream)

    async with serving("tcp", on_receive=echo, on_connect=enter) as net:
        client = net.connect()
        await client.send_all(b"in\n")
        assert await receive_exactly(client, 3) == b"in\n"
        assert len(room) == 1


@each_carrier
async def test_on_stream_iterates_over_frames(carrier: str) -> None:
    """frames() ends at the end of data, and the handler can still answer then."""

    async def on_stream(stream: Connection) -> None:
        frames = [frame async for frame in stream.frames()]
        await stream.send_frame(b"%d frames" % len(frames))

    async with serving(carrier, on_stream=on_stream) as net:
        client = net.connect()
        await client.send_all(b"a\nb\nc\n")
        await client.send_eof()
        assert await receive_all(client) == b"3 frames\n"


@each_carrier
async def test_on_stream_that_returns_closes(carrier: str) -> None:
    """The connection ends with its handler."""
    reasons = Seen()

    async def on_stream(stream: Connection) -> None:
        await stream.send_all(b"bye")

    async with serving(carrier, on_stream=on_stream, on_close=reasons.on_close) as net:
        assert await receive_all(net.connect()) == b"bye"
        await reasons.wait("closed by the server")


@each_carrier
async def test_receive_some_passes_the_framing(carrier: str) -> None:
    """Bytes come as they are, and none at the end."""

    async def on_stream(stream: Connection) -> None:
        with pytest.raises(ValueError, match=r"^max_bytes must be >= 1: 0$"):
            await stream.receive_some(0)
        data = await receive_exactly(stream, 3)
        rest = await receive_all(stream)
        await stream.send_all(data + b"|" + rest)

    async with serving(carrier, on_stream=on_stream, framing=FixedFraming(100)) as net:
        client = net.connect()
        await client.send_all(b"abcdef")
        await client.send_eof()
        assert await receive_all(client) == b"abc|def"


@each_carrier
async def test_send_eof(carrier: str) -> None:
    """What was sent before it arrives, then the end; later sends raise, and receiving goes on."""

    async def on_stream(stream: Connection) -> None:
        await stream.send_all(b"x" * 1_000_000)
        await stream.send_eof()
        await stream.send_eof()
        with pytest.raises(
            trio.ClosedResourceError, match=r"^send_eof was called on this connection$"
        ):
            await stream.send_all(b"more")
        with pytest.raises(trio.ClosedResourceError):
            await stream.wait_send_all_might_not_block()
        assert await stream.receive_frame() == b"still here"

    async with serving(carrier, on_stream=on_stream) as net:
        client = net.connect()
        assert await receive_all(client) == b"x" * 1_000_000
        await client.send_all(b"still here\n")
        assert await receive_all(client) == b""


@each_tcp
async def test_raw_framing_delivers_what_arrives(carrier: str) -> None:
    """Without a framing on_receive gets bytes as they come."""

    async def on_receive(stream: Connection, data: bytes) -> None:
        await stream.send_all(data.upper())

    async with serving(carrier, on_receive=on_receive, framing=RawFraming()) as net:
        client = net.connect()
        await client.send_all(b"hello")
        assert await receive_exactly(client, 5) == b"HELLO"


@pytest.mark.parametrize("wrong", ["text", 5, None])
async def test_only_bytes_are_sent(wrong: object) -> None:
    """What is not bytes is refused, a number too, which bytes() would take for a length."""

    async def on_stream(stream: Connection) -> None:
        with pytest.raises(TypeError):
            await stream.send_all(wrong)  # type: ignore[arg-type]  # what is tested
        await stream.send_all(bytearray(b"a"))
        await stream.send_all(memoryview(b"b"))

    async with serving("epoll", on_stream=on_stream) as net:
        assert await receive_all(net.connect()) == b"ab"
