"""Turns that one client leaves to others, and writes that it saves."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import trio
import trio.testing
from net import Seen, each_tcp, receive_exactly, serving

from trioserver._net._framing import FixedFraming
from trioserver._net._inbox import FRAME_BUDGET
from trioserver._net._transport import SocketTransport

if TYPE_CHECKING:
    import pytest

    from trioserver._net._connection import Connection


async def echo(stream: Connection, frame: bytes) -> None:
    await stream.send_frame(frame)


async def test_a_flood_gives_others_their_turn() -> None:
    """After a budget of frames others run, though the client's next frames are there already."""
    seen = Seen()
    counts: list[int] = []

    async def on_receive(stream: Connection, frame: bytes) -> None:  # noqa: ASYNC124  # never waits
        seen.add(frame)

    async def bystander() -> None:
        while True:
            counts.append(len(seen.events))
            await trio.lowlevel.checkpoint()

    async with serving(on_receive=on_receive) as net, trio.open_nursery() as nursery:
        await net.connect().send_all(b"x\n" * 1000 + b"last\n")
        nursery.start_soon(bystander)
        await seen.wait(b"last")
        nursery.cancel_scope.cancel()

    steps = [after - before for before, after in pairwise(counts)]
    assert 0 < max(steps) <= 2 * FRAME_BUDGET


@each_tcp
async def test_a_large_frame_gives_others_their_turn(carrier: str) -> None:
    """Others run while a frame of many reads is coming in, though no read has to wait."""
    size = 4 * 2**20
    turns = 0

    async def bystander() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        await stream.send_all(b"got it")

    async with (
        serving(
            carrier,
            on_receive=on_receive,
            framing=FixedFraming(size),
            max_length=size,
        ) as net,
        trio.open_nursery() as nursery,
    ):
        client = net.connect()
        nursery.start_soon(client.send_all, b"x" * size)
        nursery.start_soon(bystander)
        assert await receive_exactly(client, 6) == b"got it"
        nursery.cancel_scope.cancel()

    assert turns > 1


@each_tcp
async def test_replies_to_frames_that_came_together_leave_together(
    carrier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One write for all of them."""
    writes: list[bytes] = []
    try_send = SocketTransport.try_send

    def record(transport: SocketTransport, data: bytes | memoryview) -> int:
        writes.append(bytes(data))
        return try_send(transport, data)

    monkeypatch.setattr(SocketTransport, "try_send", record)
    async with serving(carrier, on_receive=echo) as net:
        client = net.connect()
        await client.send_all(b"1\n2\n3\n4")
        assert await receive_exactly(client, 6) == b"1\n2\n3\n"

    assert writes == [b"1\n2\n3\n"]
