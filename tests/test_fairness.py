"""Turns that one client leaves to others, and writes that it saves."""

from __future__ import annotations

import socket
from itertools import pairwise
from typing import TYPE_CHECKING

import trio
import trio.testing
from net import Seen, each_tcp, receive_exactly, serving

from trioserver._net._framing import FixedFraming
from trioserver._net._inbox import FRAME_BUDGET, READ_SIZE, Inbox
from trioserver._net._transport import SocketTransport
from trioserver._pacing import Pacer

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


class Endless:
    """A transport from which a read never has to wait."""

    async def receive_some(self, max_bytes: int) -> bytes:  # noqa: ASYNC124  # it never waits
        return b"x" * max_bytes


async def test_a_large_frame_gives_others_their_turn() -> None:
    """Between the reads of a frame others get their turn when it is due, though none must wait."""
    turns = 0

    class Counting(Pacer):
        async def checkpoint(self) -> None:
            nonlocal turns
            turns += 1
            await trio.lowlevel.checkpoint()

    inbox = Inbox(Endless(), Counting())  # type: ignore[arg-type]  # it needs no more
    inbox.use(FixedFraming(10 * READ_SIZE).decoder(10 * READ_SIZE))
    frame = await inbox.receive_frame()

    assert len(frame) == 10 * READ_SIZE
    assert turns >= 10 - 1


class NeverDue(Pacer):
    """What yields must not be what is tested."""

    async def checkpoint(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()


async def test_replies_are_written_before_the_next_read() -> None:
    """A joined reply does not wait for frames that only another read brings."""
    seen = Seen()
    ours, theirs = socket.socketpair()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        if frame == b"1":
            await stream.send_all(b"reply")  # joined, for the next frame is here
        if frame == b"3":
            seen.add(ours.recv(100))

    with ours:
        for end in (ours, theirs):
            end.setblocking(False)
        # One read takes two frames and not a byte more; the third is there as well.
        data = b"1\n" + b"2" * (READ_SIZE - 3) + b"\n" + b"3\n"
        assert ours.send(data) == len(data)
        async with serving(on_receive=on_receive, pacer=NeverDue()) as net:
            net.connections.add_socket(theirs)
            await seen.wait(b"reply")


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
