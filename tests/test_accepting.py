"""Accepting on real sockets: who is served, who waits, and which errors are survived."""

from __future__ import annotations

import errno
import logging
import os
import socket
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from net import Seen, logged, receive_all, receive_exactly, serving

from trioserver._net._binding import bind_all
from trioserver._net._listeners import ACCEPT_BATCH, Listener
from trioserver._pacing import TURN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trioserver._net._connection import Connection


def port_of(listener: Listener) -> int:
    return int(listener.address.rpartition(":")[2])


async def echo(stream: Connection, frame: bytes) -> None:
    await stream.send_frame(frame)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_accepted_clients_are_served(tmp_path: Path, kind: str) -> None:
    """Clients are served, TCP ones without Nagle's delay; those of a Unix socket have no name."""
    options: list[object] = []

    async def on_receive(stream: Connection, frame: bytes) -> None:
        sock = stream._transport._sock  # type: ignore[attr-defined]  # what is tested
        if sock.family == socket.AF_INET:
            options.append(bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
        options.append(stream.peername)
        await stream.send_frame(frame)

    address = "127.0.0.1:0" if kind == "tcp" else f"unix:{tmp_path / 'socket'}"
    async with serving(on_receive=on_receive) as net, trio.open_nursery() as accepting:
        with bind_all([address]) as (listener,):
            listener.listen(16)
            accepting.start_soon(listener.accept_into, net.connections)
            client: trio.SocketStream
            if kind == "tcp":
                client = await trio.open_tcp_stream("127.0.0.1", port_of(listener))
            else:
                client = await trio.open_unix_socket(str(tmp_path / "socket"))
            async with client:
                await client.send_all(b"hello\n")
                assert await receive_exactly(client, 6) == b"hello\n"
                name = client.socket.getsockname()
            accepting.cancel_scope.cancel()

    assert options == ([True, name] if kind == "tcp" else [""])


async def test_who_comes_does_not_go_before_who_stays() -> None:
    """However many connect, each with a request that takes time: a few batches are before it."""
    many, polite_sends_at = 400, 100
    order: list[bytes] = []
    polite = socket.socket()
    all_served = trio.Event()

    async def on_receive(stream: Connection, frame: bytes) -> None:  # noqa: ASYNC124  # it hurries
        order.append(frame)
        if len(order) == polite_sends_at:
            polite.sendall(b"polite\n")
        if len(order) > many:
            all_served.set()
        began = perf_counter()
        while perf_counter() < began + TURN:
            pass

    with polite, bind_all(["127.0.0.1:0"]) as (listener,):
        listener.listen(many)
        address = ("127.0.0.1", port_of(listener))
        async with (
            serving(on_receive=on_receive, max_conn=2 * many) as net,
            trio.open_nursery() as accepting,
        ):
            accepting.start_soon(listener.accept_into, net.connections)
            polite.connect(address)
            await trio.testing.wait_all_tasks_blocked()
            storm = [socket.create_connection(address) for _ in range(many)]
            for sock in storm:
                sock.sendall(b"storm\n")
            await all_served.wait()
            for sock in storm:
                sock.close()
            accepting.cancel_scope.cancel()

    waited = order.index(b"polite") - polite_sends_at
    assert waited <= 3 * ACCEPT_BATCH


async def test_clients_wait_while_it_is_full() -> None:
    """Beyond max_conn clients stay in the backlog, and are served when others have left."""
    seen = Seen()
    with bind_all(["127.0.0.1:0"]) as (listener,):
        listener.listen(16)
        async with (
            serving(on_connect=seen.on_connect, on_receive=echo, max_conn=2) as net,
            trio.open_nursery() as accepting,
        ):
            accepting.start_soon(listener.accept_into, net.connections)
            clients = []
            for _ in range(3):
                clients.append(await trio.open_tcp_stream("127.0.0.1", port_of(listener)))
                await clients[-1].send_all(b"hello\n")
            for client in clients[:2]:
                assert await receive_exactly(client, 6) == b"hello\n"
            assert (len(net.connections), list(seen)) == (2, ["open"] * 2)
            await clients[0].aclose()
            assert await receive_exactly(clients[2], 6) == b"hello\n"
            assert len(net.connections) == 2
            for client in clients:
                await client.aclose()
            accepting.cancel_scope.cancel()


class Exhausted(socket.socket):
    """A listening socket whose next accepts fail with ``errors``."""

    errors: list[int]

    def accept(self) -> tuple[socket.socket, object]:
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()


@contextmanager
def listening(errors: list[int]) -> Iterator[tuple[socket.socket, int]]:
    with Exhausted() as sock:
        sock.errors = errors
        sock.bind(("127.0.0.1", 0))
        sock.listen(16)
        sock.setblocking(False)
        yield sock, sock.getsockname()[1]


async def accept_with(errors: list[int]) -> None:
    """Serve one client on a socket that fails before."""
    with listening(errors) as (sock, port):
        async with serving(on_receive=echo) as net, trio.open_nursery() as accepting:
            accepting.start_soon(Listener(sock, "here").accept_into, net.connections)
            async with await trio.open_tcp_stream("127.0.0.1", port) as client:
                await client.send_all(b"hello\n")
                await client.send_eof()
                assert await receive_all(client) == b"hello\n"
            accepting.cancel_scope.cancel()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_no_more_descriptors(number: int, caplog: pytest.LogCaptureFixture) -> None:
    """Accepting goes on when there are some again; a line says so, and one said it began."""
    caplog.set_level(logging.INFO)
    await accept_with([number] * 3)

    assert logged(caplog, logging.INFO) == [
        f"cannot accept on here for now: {os.strerror(number)}",
        "accepting on here again",
    ]


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENETDOWN])
async def test_a_client_that_left_before(number: int, caplog: pytest.LogCaptureFixture) -> None:
    """Its error is nobody's concern."""
    caplog.set_level(logging.INFO)
    await accept_with([number] * 3)

    assert logged(caplog, logging.INFO) == []


async def test_an_error_of_our_own_is_raised() -> None:
    """An accept that can never succeed is not repeated for ever."""
    with listening([errno.EINVAL]) as (sock, port):
        async with serving(on_receive=echo) as net, await trio.open_tcp_stream("127.0.0.1", port):
            with pytest.raises(OSError, match=r"Invalid argument$"):
                await Listener(sock, "here").accept_into(net.connections)


@pytest.mark.parametrize("is_exhausted", [False, True])
async def test_accepting_is_cancellable(*, is_exhausted: bool) -> None:
    """Neither a wait for clients nor one for descriptors outlasts its scope."""
    with listening([errno.EMFILE] * 1000 if is_exhausted else []) as (sock, port):
        async with serving(on_receive=echo) as net, trio.open_nursery() as accepting:
            accepting.start_soon(Listener(sock, "here").accept_into, net.connections)
            async with await trio.open_tcp_stream("127.0.0.1", port):
                await trio.testing.wait_all_tasks_blocked()
            accepting.cancel_scope.cancel()
