"""Replies to frames that arrived together leave together, and none is held back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from net import each_tcp, receive_all, receive_exactly, serving
from outboxes import Fixture

from trioserver._net._outbox import HIGH_WATER
from trioserver._net._transport import SocketTransport
from trioserver._pacing import Pacer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trioserver._net._connection import Connection


class NeverYields(Pacer):
    """A turn gives the scheduler a chance, and is a write of its own: how often is the clock's."""

    async def checkpoint(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()


@pytest.fixture
def writes() -> Iterator[list[bytes]]:
    """What every system call that sends has been given."""
    given: list[bytes] = []
    original = SocketTransport.try_send

    def try_send(transport: SocketTransport, data: bytes) -> int:
        given.append(data)
        return original(transport, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SocketTransport, "try_send", try_send)
        yield given


@each_tcp
async def test_one_write_for_frames_that_came_together(carrier: str, writes: list[bytes]) -> None:
    """The replies are joined, and written with the last of them."""

    async def on_receive(stream: Connection, frame: bytes) -> None:
        await stream.send_frame(frame)
        await stream.send_frame(frame.upper())

    async with serving(carrier, on_receive=on_receive, pacer=NeverYields()) as net:
        client = net.connect()
        await client.send_all(b"a\nb\nc\n")
        assert await receive_exactly(client, 12) == b"a\nA\nb\nB\nc\nC\n"

    # Only the last frame's second reply finds nothing to be joined with.
    assert writes == [b"a\nA\nb\nB\nc\n", b"C\n"]


@each_tcp
async def test_a_callback_that_waits_holds_nothing_back(carrier: str, writes: list[bytes]) -> None:
    """What it has sent before it waits for anything is written first."""
    go_on = trio.Event()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        await stream.send_frame(frame)
        if frame == b"b":
            await go_on.wait()

    async with serving(carrier, on_receive=on_receive, pacer=NeverYields()) as net:
        client = net.connect()
        await client.send_all(b"a\nb\nc\nd\n")
        assert await receive_exactly(client, 4) == b"a\nb\n"
        go_on.set()
        assert await receive_exactly(client, 4) == b"c\nd\n"

    assert writes == [b"a\nb\n", b"c\nd\n"]


@each_tcp
async def test_a_last_frame_without_a_reply(carrier: str, writes: list[bytes]) -> None:
    """Replies to the frames before it do not wait for the next frame that has one."""

    async def on_receive(stream: Connection, frame: bytes) -> None:
        if frame != b"quiet":
            await stream.send_frame(frame)

    async with serving(carrier, on_receive=on_receive, pacer=NeverYields()) as net:
        client = net.connect()
        await client.send_all(b"a\nb\nquiet\n")
        assert await receive_exactly(client, 4) == b"a\nb\n"

    assert writes == [b"a\nb\n"]


@each_tcp
@pytest.mark.parametrize("how", ["returns", "raises", "closes"])
async def test_an_end_holds_nothing_back(carrier: str, how: str) -> None:
    """What was joined is sent also when the connection ends in the middle of a batch."""

    async def on_receive(stream: Connection, frame: bytes) -> None:
        await stream.send_frame(frame)
        if frame == b"b":
            if how == "raises":
                raise ValueError
            if how == "closes":
                await stream.aclose()

    async with serving(carrier, on_receive=on_receive, may_fail=True) as net:
        client = net.connect()
        await client.send_all(b"a\nb\nc\n")
        await client.send_eof()
        expected = b"a\nb\nc\n" if how == "returns" else b"a\nb\n"
        assert await receive_all(client) == expected


@each_tcp
async def test_replies_of_several_tasks_keep_their_order(carrier: str) -> None:
    """What another Trio task sends comes after what a callback had sent before."""

    async def on_receive(stream: Connection, frame: bytes) -> None:
        await stream.send_frame(frame + b" callback")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_frame, frame + b" task")
            nursery.start_soon(trio.lowlevel.checkpoint)
        await stream.send_frame(frame + b" again")

    async with serving(carrier, on_receive=on_receive) as net:
        client = net.connect()
        await client.send_all(b"1\n2\n")
        await client.send_eof()
        assert (await receive_all(client)).split(b"\n") == [
            b"1 callback",
            b"1 task",
            b"1 again",
            b"2 callback",
            b"2 task",
            b"2 again",
            b"",
        ]


@each_tcp
async def test_joining_ends_at_its_limit(carrier: str, writes: list[bytes]) -> None:
    """Large replies are not kept for ever; all arrive whole and in order."""
    size = HIGH_WATER // 4 - 1

    async def on_receive(stream: Connection, frame: bytes) -> None:
        await stream.send_frame(frame * size)

    async with serving(carrier, on_receive=on_receive, pacer=NeverYields()) as net:
        client = net.connect()
        await client.send_all(b"".join(b"%c\n" % letter for letter in b"abcdefghij"))
        await client.send_eof()
        data = await receive_all(client)

    assert data == b"".join(b"%c" % letter * size + b"\n" for letter in b"abcdefghij")
    # Four fill what may be kept, and the fifth takes them with it.
    assert [len(write) for write in writes] == [5 * (size + 1), 5 * (size + 1)]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([HIGH_WATER, 1], [HIGH_WATER + 1]),
        ([HIGH_WATER - 1, 1], [HIGH_WATER]),
        ([HIGH_WATER - 1, 2, 3], [HIGH_WATER + 1, 3]),
        ([HIGH_WATER + 1, 1], [HIGH_WATER + 1, 1]),
    ],
)
async def test_the_limit_is_exact(
    nursery: trio.Nursery, sizes: list[int], expected: list[int]
) -> None:
    """64 KiB may be kept; with what goes beyond it, everything is written at once."""
    made = Fixture(nursery, room=10**6)

    async def callbacks() -> None:
        for size in sizes:
            if not made.outbox.join(bytes(size)):
                await made.send_all(bytes(size))
        await trio.lowlevel.checkpoint()

    await made.outbox.write_before_waiting(callbacks())

    assert [len(write) for write in made.kernel.writes] == expected


@each_tcp
async def test_a_client_that_does_not_read(carrier: str) -> None:
    """It makes its callbacks wait, and nothing piles up; all arrives when it does read."""
    answered = 0

    async def on_receive(stream: Connection, frame: bytes) -> None:
        nonlocal answered
        await stream.send_all(b"x" * 100_000)
        answered += 1

    async with serving(carrier, on_receive=on_receive) as net:
        client = net.connect()
        await client.send_all(b"x\n" * 500)
        await trio.testing.wait_all_tasks_blocked()
        assert answered < 500
        (connection,) = net.connections.all()
        assert sum(len(piece.data) for piece in connection._outbox._pieces) <= 200_000
        assert len(await receive_exactly(client, 500 * 100_000)) == 500 * 100_000


@each_tcp
async def test_a_client_that_leaves_while_it_should_read(carrier: str) -> None:
    """A callback that waits for it ends, and so does the connection."""
    ended = trio.Event()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        await stream.send_all(bytes(100_000_000))

    async def on_close(stream: Connection) -> None:
        await trio.lowlevel.checkpoint()
        assert stream.close_reason == "reset by the client"
        ended.set()

    async with serving(carrier, on_receive=on_receive, on_close=on_close) as net:
        client = net.connect()
        await client.send_all(b"x\n")
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()
        await ended.wait()


@each_tcp
async def test_every_joined_send_checks_for_cancellation(carrier: str) -> None:
    """Also those behind the first, which do no more than join."""

    async def on_receive(stream: Connection, frame: bytes) -> None:
        await stream.send_frame(b"1")
        with trio.CancelScope() as scope:
            await stream.send_frame(b"2")
            scope.cancel()
            await stream.send_frame(b"never")
        await stream.send_frame(b"3")

    async with serving(carrier, on_receive=on_receive, pacer=NeverYields()) as net:
        client = net.connect()
        await client.send_all(b"a\nb\n")
        assert await receive_exactly(client, 12) == b"1\n2\n3\n" * 2


@each_tcp
async def test_joining_yields_in_time(carrier: str) -> None:
    """Thousands of small replies to one frame give others their turn, though none is written."""
    checked = 0

    class Counting(NeverYields):
        def is_due(self) -> bool:
            nonlocal checked
            checked += 1
            return False

    async def on_receive(stream: Connection, frame: bytes) -> None:
        if frame == b"a":
            for _ in range(10_000):
                await stream.send_all(b"x")
        await stream.send_all(frame)

    async with serving(carrier, on_receive=on_receive, pacer=Counting()) as net:
        client = net.connect()
        await client.send_all(b"a\nb\n")
        assert await receive_exactly(client, 10_002) == b"x" * 10_000 + b"ab"

    assert checked >= 10
