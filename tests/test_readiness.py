"""Waiting for sockets: the same rules by our epoll and by Trio's own waits."""

from __future__ import annotations

import resource
import select
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from ends import End, each_way, one_end, opened, raising

from trioserver._net import _readiness
from trioserver._net._readiness import make_readiness
from trioserver._net._readiness_plain import TrioReadiness
from trioserver._net._transport import ReadingStopped

if TYPE_CHECKING:
    from collections.abc import Iterator


MANY = 2000


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Let this process have ``count`` descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_epoll_is_used_where_it_is() -> None:
    """The system's best way is taken without being asked for."""
    with make_readiness() as readiness:
        assert isinstance(readiness, TrioReadiness) != hasattr(select, "epoll")


@each_way
async def test_data_while_nobody_waits(way: str) -> None:
    """What comes while its reader does something else is there when it asks."""
    async with one_end(way) as end:
        for number in range(5):
            end.peer.send(b"%d" % number)
            await trio.testing.wait_all_tasks_blocked()
            assert await end.transport.receive_some(100) == b"%d" % number


@each_way
async def test_data_while_it_waits(way: str) -> None:
    """A reader that found nothing is woken, again and again."""
    async with one_end(way) as end, trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[bytes](1)

        async def read() -> None:
            while data := await end.transport.receive_some(100):
                await send.send(data)

        nursery.start_soon(read)
        for number in range(5):
            await trio.testing.wait_all_tasks_blocked()
            end.peer.send(b"%d" % number)
            assert await receive.receive() == b"%d" % number
        end.peer.close()


@each_way
@pytest.mark.parametrize("size", [4, 5])
async def test_a_read_that_fills_its_buffer(way: str, size: int) -> None:
    """More is read at once, without another event; also if there is nothing more."""
    async with one_end(way) as end:
        end.peer.send(b"0123456789"[: 2 * size])
        await trio.testing.wait_all_tasks_blocked()
        data = await end.transport.receive_some(size) + await end.transport.receive_some(size)
        assert data == b"0123456789"[: 2 * size]
        with trio.move_on_after(0.01) as scope:
            await end.transport.receive_some(size)
        assert scope.cancelled_caught
        end.peer.send(b"on")
        assert await end.transport.receive_some(size) == b"on"


@each_way
@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("size", [4, 8, 100])
async def test_the_end_together_with_data(way: str, size: int, *, tcp: bool) -> None:
    """All data comes before the end, and then the end, though both were one event."""
    async with one_end(way, tcp=tcp) as end:
        end.peer.send(b"01234567")
        end.peer.shutdown(socket.SHUT_WR)
        await trio.testing.wait_all_tasks_blocked()
        data = b""
        while chunk := await end.transport.receive_some(size):
            data += chunk
        assert data == b"01234567"
        assert await end.transport.receive_some(size) == b""


@each_way
async def test_the_end_after_a_short_read(way: str) -> None:
    """A read that was not full does not hide the end that comes later."""
    async with one_end(way) as end:
        end.peer.send(b"data")
        assert await end.transport.receive_some(100) == b"data"
        end.peer.shutdown(socket.SHUT_WR)
        assert await end.transport.receive_some(100) == b""


@each_way
async def test_a_writer_waits_for_its_peer(way: str) -> None:
    """All arrives as the peer takes it, though the socket takes little at a time."""
    async with one_end(way) as end, trio.open_nursery() as nursery:
        nursery.start_soon(end.transport.send_all, memoryview(b"x" * 3_000_000))
        left = 3_000_000
        while left:
            await trio.lowlevel.wait_readable(end.peer)
            left -= len(end.peer.recv(65536))


@each_way
async def test_a_spurious_event(way: str) -> None:
    """A socket that is said to be readable and is not is waited for again."""
    async with one_end(way) as end, trio.open_nursery() as nursery:
        received: list[bytes] = []

        async def read() -> None:
            received.append(await end.transport.receive_some(100))

        watch = end.transport._watch
        watch.is_readable = True
        nursery.start_soon(read)
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked()
            if isinstance(watch, _readiness._EpollWatch):
                watch.happened(select.EPOLLIN | select.EPOLLOUT)
            await trio.testing.wait_all_tasks_blocked()
            assert received == []
        end.peer.send(b"now")

    assert received == [b"now"]


@each_way
async def test_an_interrupt_ends_the_wait(way: str) -> None:
    """stop_reading wakes the reader; what has come by then may be read, once, and no more."""
    async with one_end(way) as end:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raising, ReadingStopped, end.transport.receive_some, 100)
            await trio.testing.wait_all_tasks_blocked()
            end.transport.stop_reading()
            await trio.testing.wait_all_tasks_blocked()
        end.transport.stop_reading()
        end.peer.send(b"too late")
        with pytest.raises(ReadingStopped):
            await end.transport.receive_some(100)


@each_way
async def test_an_interrupt_with_data_at_hand(way: str) -> None:
    """What was there at stop_reading is still received, and then nothing."""
    async with one_end(way) as end:
        end.peer.send(b"in time")
        end.transport.stop_reading()
        assert await end.transport.receive_some(100) == b"in time"
        end.peer.send(b"too late")
        with pytest.raises(ReadingStopped):
            await end.transport.receive_some(100)


@each_way
async def test_one_reader_at_a_time(way: str) -> None:
    """A second one gets BusyResourceError, and the first goes on waiting."""
    async with one_end(way) as end, trio.open_nursery() as nursery:
        received: list[bytes] = []

        async def read() -> None:
            received.append(await end.transport.receive_some(100))

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await end.transport.receive_some(100)
        end.peer.send(b"for the first")

    assert received == [b"for the first"]


@each_way
async def test_thousands_of_sockets(way: str) -> None:
    """All that have something at once are served, more than one batch of events has."""
    with descriptors(2 * MANY + 200):
        async with opened(way) as readiness:
            ends = [End(readiness) for _ in range(MANY)]
            answered = 0

            async def echo(end: End) -> None:
                nonlocal answered
                for _ in range(2):
                    data = await end.transport.receive_some(100)
                    await end.transport.send_all(memoryview(data))
                answered += 1

            async with trio.open_nursery() as nursery:
                for end in ends:
                    nursery.start_soon(echo, end)
                await trio.testing.wait_all_tasks_blocked()
                for text in (b"first", b"again"):
                    for end in ends:
                        end.peer.send(text)
                    for end in ends:
                        await trio.lowlevel.wait_readable(end.peer)
                        assert end.peer.recv(100) == text

            assert answered == MANY
            for end in ends:
                end.peer.close()
                await end.transport.aclose()
