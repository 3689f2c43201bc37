"""Each connection sends its next requests when it has all replies to the last.

As a program it is what of ``redis-benchmark -t ping_inline --csv`` the cases use, where that is not
installed. It is slower, and shows the limits of a fast server less well.
"""

from __future__ import annotations

import argparse
import csv
import selectors
import socket
import sys
import time
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Final

from benchmarks import _durations
from benchmarks._suite import Figure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks._servers import Server

_REQUEST: Final = b"PING\r\n"
_REPLY: Final = b"+PONG\r\n"
_READ_SIZE: Final = 64 * 1024
_WARMING_UP: Final = 5_000


def load(sockets: Iterable[socket.socket], pipeline: int, requests: int) -> float:
    """Requests per second, each connection sending its next when it has all replies.

    Raises:
      ConnectionError: if the server closes one of them.
    """
    batch, wanted = _REQUEST * pipeline, len(_REPLY) * pipeline
    unsent = unanswered = -(-requests // pipeline)
    with selectors.DefaultSelector() as selector:
        missing: dict[socket.socket, int] = {}
        began = time.perf_counter()
        for sock in islice(sockets, unsent):
            selector.register(sock, selectors.EVENT_READ)
            sock.sendall(batch)
            missing[sock] = wanted
        unsent -= len(missing)
        while unanswered:
            for key, _ in selector.select():
                sock = key.fileobj  # type: ignore[assignment]  # as it was registered
                data = sock.recv(_READ_SIZE)
                if not data:
                    raise ConnectionError("the server has closed a connection")
                missing[sock] -= len(data)
                if missing[sock]:
                    continue
                unanswered -= 1
                if unsent:
                    unsent -= 1
                    sock.sendall(batch)
                    missing[sock] = wanted
        return requests / (time.perf_counter() - began)


def figure_of(server: Server, connections: int, pipeline: int) -> Figure:
    """Requests per second of ``server`` from this process, and the CPU time of one.

    All connections are there before it is measured.
    """
    at_least = 2 * connections * pipeline
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            for _ in range(connections)
        ]
        rate = load(sockets, pipeline, max(_WARMING_UP, at_least))
        requests = max(at_least, int(rate * _durations.SECONDS))
        began = server.cpu
        rate = load(sockets, pipeline, requests)
        return Figure(rate, (server.cpu - began) / requests * 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-h", dest="host")
    parser.add_argument("-p", dest="port", type=int)
    parser.add_argument("-t", dest="test", choices=["ping_inline"])
    parser.add_argument("-n", dest="requests", type=int)
    parser.add_argument("-c", dest="connections", type=int)
    parser.add_argument("-P", dest="pipeline", type=int)
    parser.add_argument("--csv", action="store_true")
    options = parser.parse_args()
    address = (options.host, options.port)
    sockets = [socket.create_connection(address) for _ in range(options.connections)]
    rate = load(sockets, options.pipeline, options.requests)
    csv.writer(sys.stdout, quoting=csv.QUOTE_ALL).writerow(["PING_INLINE", f"{rate:.2f}"])
    for sock in sockets:
        sock.close()


if __name__ == "__main__":
    main()
