"""A socket that is watched by either readiness, and its peer."""

from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVarTuple

import pytest
import trio
import trio.testing
from net import PATIENCE, tcp_pair

from trioserver._net import _readiness
from trioserver._net._readiness import EpollReadiness, make_readiness
from trioserver._net._readiness_plain import TrioReadiness
from trioserver._net._transport import SocketTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trioserver._net._readiness import Readiness

ArgsT = TypeVarTuple("ArgsT")


each_way = pytest.mark.parametrize("way", ["epoll", "trio"])


class End:
    """A transport under test and the peer's socket."""

    def __init__(self, readiness: Readiness, *, tcp: bool = False) -> None:
        if tcp:
            self.peer, self.sock = tcp_pair()
        else:
            self.peer, self.sock = socket.socketpair()
            self.sock.setblocking(False)
            self.peer.setblocking(False)
        self.was_reset = trio.Event()
        self.transport = SocketTransport(self.sock, readiness, self.was_reset.set)

    def reset(self) -> None:
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()


@asynccontextmanager
async def opened(way: str) -> AsyncIterator[Readiness]:
    with pytest.MonkeyPatch.context() as patch, trio.fail_after(PATIENCE):
        if way == "trio":
            patch.setattr(_readiness, "HAS_EPOLL", False)
        with make_readiness() as readiness:
            async with trio.open_nursery() as nursery:
                if isinstance(readiness, EpollReadiness):
                    nursery.start_soon(readiness.run)
                assert isinstance(readiness, TrioReadiness) == (way == "trio")
                yield readiness
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def one_end(way: str, *, tcp: bool = False) -> AsyncIterator[End]:
    async with opened(way) as readiness:
        end = End(readiness, tcp=tcp)
        try:
            yield end
        finally:
            end.peer.close()
            if end.sock.fileno() >= 0:
                await end.transport.aclose()


async def raising(
    error: type[Exception], async_fn: Callable[[*ArgsT], Awaitable[object]], *args: *ArgsT
) -> None:
    """For a nursery: ``async_fn(*args)`` raises ``error``."""
    with pytest.raises(error):
        await async_fn(*args)
