"""One client that floods: ``python -m benchmarks._flood PORT``, until its standard input ends.

Sends requests as fast as they are taken, reads replies as fast as they come, and prints the rate.
It gets what the other load generators on its core leave, and they never wait for it.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from benchmarks._generators import Generator, wait_to_begin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks._servers import Server

_CHUNK: Final = memoryview(b"PING\r\n" * 10_000)
_REPLY_SIZE: Final = len(b"+PONG\r\n")
_READ_SIZE: Final = 2**20
_SETTLING: Final = 0.3
"""Seconds until the flood has filled all buffers."""


class Flood:
    """A flood that is going on, whose rate is known when it is over."""

    rate = 0.0
    """Replies per second."""


@contextmanager
def flooding(server: Server) -> Iterator[Flood]:
    """Flood ``server`` meanwhile, from a process of its own on the cores of this one."""
    flood = Flood()
    with Generator(__name__, server.port) as generator:
        generator.begin()
        time.sleep(_SETTLING)
        yield flood
        flood.rate = float(generator.result())


def main() -> None:
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    sock.setblocking(False)
    wait_to_begin()
    buffer = bytearray(_READ_SIZE)
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLOUT)
    poll.register(sys.stdin, select.POLLIN)
    offset = received = 0
    began = time.perf_counter()
    while True:
        for fd, events in poll.poll():
            if fd == sys.stdin.fileno():
                print(received / _REPLY_SIZE / (time.perf_counter() - began))
                return
            if events & select.POLLIN:
                size = sock.recv_into(buffer)
                if not size:
                    raise ConnectionError("the server has closed the connection")
                received += size
            if events & select.POLLOUT:
                # A chunk may be cut within a request, and the next one goes on there.
                offset = (offset + sock.send(_CHUNK[offset:])) % len(_CHUNK)


if __name__ == "__main__":
    main()
