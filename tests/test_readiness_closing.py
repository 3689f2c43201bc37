"""How waits for sockets end: closes, cancellation, resets, and sockets that reuse a number."""

from __future__ import annotations

import select

import pytest
import trio
import trio.testing
from ends import End, each_way, one_end, opened, raising

from trioserver._net import _readiness


@each_way
async def test_close_while_waiting(way: str) -> None:
    """Those who wait for a socket that closes get ClosedResourceError."""
    async with one_end(way) as end, trio.open_nursery() as nursery:
        nursery.start_soon(raising, trio.ClosedResourceError, end.transport.receive_some, 100)
        await trio.testing.wait_all_tasks_blocked()
        await end.transport.aclose()


@each_way
async def test_close_while_a_writer_waits(way: str) -> None:
    """A writer whose peer takes nothing gets ClosedResourceError too."""
    async with one_end(way) as end, trio.open_nursery() as nursery:
        nursery.start_soon(
            raising,
            trio.ClosedResourceError,
            end.transport.send_all,
            memoryview(bytes(10_000_000)),
        )
        await trio.testing.wait_all_tasks_blocked()
        await end.transport.aclose()


@each_way
async def test_cancellation_while_it_waits(way: str) -> None:
    """A cancelled reader is gone, takes nothing with it, and is not woken twice."""
    async with one_end(way) as end:
        for number in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end.transport.receive_some, 100)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            end.peer.send(b"%d" % number)
            await trio.testing.wait_all_tasks_blocked()
            assert await end.transport.receive_some(100) == b"%d" % number


@each_way
async def test_cancellation_together_with_data(way: str) -> None:
    """Whatever comes first, no byte is lost: it was received, or still can be."""
    async with one_end(way) as end:
        for number in range(50):
            received: list[bytes] = []

            async def read(received: list[bytes] = received) -> None:
                received.append(await end.transport.receive_some(100))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                end.peer.send(b"%d" % number)
                for _ in range(number % 4):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            if not received:
                await read()
            assert received == [b"%d" % number]


@each_way
async def test_cancellation_of_a_writer(way: str) -> None:
    """A cancelled writer can be followed by another."""
    async with one_end(way) as end:
        with trio.move_on_after(0.01):
            await end.transport.send_all(memoryview(bytes(10_000_000)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end.transport.send_all, memoryview(b"end"))
            await trio.testing.wait_all_tasks_blocked()
            data = b""
            while not data.endswith(b"end"):
                await trio.lowlevel.wait_readable(end.peer)
                data = data[-2:] + end.peer.recv(65536)


async def test_a_reset() -> None:
    """Trio's own waits do not tell of it, so who reads or writes next gets BrokenResourceError."""
    async with one_end("trio", tcp=True) as end:
        end.reset()
        with pytest.raises(trio.BrokenResourceError, match=r"^the connection was reset$"):
            await end.transport.receive_some(100)
        with pytest.raises(trio.BrokenResourceError, match=r"^the connection was reset$"):
            end.transport.try_send(b"x")
        assert not end.was_reset.is_set()


async def test_a_reset_while_nobody_waits() -> None:
    """Epoll tells the connection of it at once, and who writes after that."""
    async with one_end("epoll", tcp=True) as end:
        await trio.testing.wait_all_tasks_blocked()
        end.reset()
        await end.was_reset.wait()
        with pytest.raises(trio.BrokenResourceError, match=r"^the connection was reset$"):
            end.transport.try_send(b"x")


async def test_an_error_that_is_of_a_socket_before() -> None:
    """An event that a healthy socket does not confirm is no reset of it."""
    async with one_end("epoll", tcp=True) as end:
        watch = end.transport._watch
        assert isinstance(watch, _readiness._EpollWatch)
        watch.happened(select.EPOLLERR | select.EPOLLHUP)
        assert not end.was_reset.is_set()


@each_way
async def test_a_copy_of_a_closed_socket(way: str) -> None:
    """Data for a copy in other hands is nothing to the socket that gets the number next."""
    async with opened(way) as readiness:
        first = End(readiness)
        number = first.sock.fileno()
        with first.peer, first.sock.dup() as copy:
            await trio.testing.wait_all_tasks_blocked()
            await first.transport.aclose()
            second = End(readiness)
            assert number in {second.sock.fileno(), second.peer.fileno()}
            first.peer.send(b"for the copy")
            await trio.testing.wait_all_tasks_blocked()
            second.peer.send(b"for the second")
            assert await second.transport.receive_some(100) == b"for the second"
            assert copy.recv(100) == b"for the copy"
        second.peer.close()
        await second.transport.aclose()
