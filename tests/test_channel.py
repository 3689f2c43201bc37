"""Records over a socketpair, whole or in pieces, and what is no record."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from through_manager import connected
from trio.testing import wait_all_tasks_blocked

from trioserver._processes._channel import HEAD, Channel, Say
from trioserver._tasks._wire import WireError

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from trioserver._processes._channel import Record

MAX_BODY = 10_000
TOO_MUCH = MAX_BODY + 2 * 1024 * 1024


class Ends:
    """A channel, its peer's socket, and what was heard."""

    def __init__(self, ours: socket.socket, peer: socket.socket, nursery: trio.Nursery) -> None:
        self.channel = Channel(ours, nursery, MAX_BODY)
        self.peer = peer
        self.heard: list[Record] = []

    def read_all(self) -> None:
        self.channel.read_all(self.heard.extend)


@asynccontextmanager
async def open_ends() -> AsyncIterator[Ends]:
    with ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + 30
            yield Ends(*connected(stack), nursery)
            nursery.cancel_scope.cancel()


RECORDS = [(Say.POST, 1, b"data"), (Say.CANCEL, 2**63, b""), (Say.ENDED, 0, b"x" * 5000)]
AS_BYTES = b"".join(HEAD.pack(kind, number, len(body)) + body for kind, number, body in RECORDS)


@pytest.mark.parametrize("size", [len(AS_BYTES), 1, 7, 4096])
async def test_records_come_as_they_were_put(size: int) -> None:
    """However the bytes are cut, and in their order."""
    async with open_ends() as ends:
        for at in range(0, len(AS_BYTES), size):
            ends.peer.send(AS_BYTES[at : at + size])
            ends.read_all()
    assert ends.heard == RECORDS


async def test_what_is_put_travels_at_the_flush() -> None:
    """Head and body are one body, and several records one message."""
    async with open_ends() as ends:
        ends.channel.put(Say.POST, 1, b"da", b"ta")
        ends.channel.put(Say.CANCEL, 2**63)
        with pytest.raises(BlockingIOError):
            ends.peer.recv(1)
        ends.channel.say(Say.ENDED, 0, b"x", b"x" * 4999)
        assert ends.peer.recv(100_000) == AS_BYTES


async def test_a_size_beyond_any_is_no_record() -> None:
    """It is not waited for; what came before it was heard, and nothing is read after it."""
    async with open_ends() as ends:
        ends.peer.send(HEAD.pack(Say.PONG, 0, 0) + HEAD.pack(Say.POST, 1, TOO_MUCH) + b"x")
        with pytest.raises(WireError):
            ends.read_all()
        ends.peer.send(HEAD.pack(Say.PONG, 0, 0))
        ends.read_all()
        await ends.channel.listen(ends.heard.extend)
    assert ends.heard == [(Say.PONG, 0, b"")]


async def test_nothing_is_read_after_what_the_hearer_refuses() -> None:
    """A process that is killed for it must not go on posting by what lies in the socket."""
    async with open_ends() as ends:

        def refuse(_records: list[Record]) -> None:
            raise WireError

        ends.peer.send(HEAD.pack(Say.POST, 0, 0))
        with pytest.raises(WireError):
            await ends.channel.listen(refuse)
        ends.peer.send(HEAD.pack(Say.POST, 1, 0))
        ends.read_all()
    assert ends.heard == []


@pytest.mark.parametrize("last", [b"", HEAD.pack(Say.POST, 1, 100)], ids=["whole", "cut"])
async def test_listening_ends_with_the_peer(last: bytes) -> None:
    """A record that was cut by its death is none."""
    async with open_ends() as ends:
        ends.peer.send(HEAD.pack(Say.PONG, 0, 0) + last)
        ends.peer.close()
        await ends.channel.listen(ends.heard.extend)
    assert ends.heard == [(Say.PONG, 0, b"")]


async def test_a_peer_that_does_not_read_holds_up_nobody() -> None:
    """What it has no room for is counted, and comes whole when it reads."""
    body = b"x" * 1_000_000
    called: list[int] = []
    async with open_ends() as ends, trio.open_nursery() as sending:
        for number in range(5):
            ends.channel.say(Say.ENDED, number, body=body)
        most = ends.channel.unsent
        assert most > 4_000_000
        ends.channel.when_sent(lambda: called.append(ends.channel.unsent))
        sending.start_soon(ends.channel.wait_sent)
        await wait_all_tasks_blocked()
        assert not called
        size = 0
        while size < 5 * (HEAD.size + len(body)):
            await trio.lowlevel.wait_readable(ends.peer)
            size += len(ends.peer.recv(2**20))
        await wait_all_tasks_blocked()
        assert ends.channel.unsent == 0
    assert called == [0]


async def test_nothing_is_said_after_hanging_up() -> None:
    """Nor is anything started in a nursery that ends."""
    async with open_ends() as ends:
        ends.channel.hang_up()
        ends.channel.say(Say.PING)
        ends.channel.when_sent(lambda: None)
        with pytest.raises(BlockingIOError):
            ends.peer.recv(1)
        assert not ends.channel._nursery.child_tasks
