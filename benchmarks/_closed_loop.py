"""What of ``redis-benchmark -t ping_inline --csv`` the cases use, where that is not installed.

It is slower, and shows the limits of a fast server less well.
"""

from __future__ import annotations

import argparse
import csv
import selectors
import socket
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_REQUEST: Final = b"PING\r\n"
_REPLY: Final = b"+PONG\r\n"


def load(sockets: Iterable[socket.socket], pipeline: int, requests: int) -> float:
    """Requests per second, each connection sending its next when it has all replies."""
    batch, wanted = _REQUEST * pipeline, len(_REPLY) * pipeline
    left = requests
    with selectors.DefaultSelector() as selector:
        missing: dict[socket.socket, int] = {}
        began = time.perf_counter()
        for sock in sockets:
            selector.register(sock, selectors.EVENT_READ)
            sock.sendall(batch)
            missing[sock] = wanted
        while left > 0:
            for key, _ in selector.select():
                sock = key.fileobj  # type: ignore[assignment]  # as it was registered
                data = sock.recv(65536)
                if not data:
                    raise ConnectionError("the server has closed a connection")
                missing[sock] -= len(data)
                if not missing[sock]:
                    left -= pipeline
                    sock.sendall(batch)
                    missing[sock] = wanted
        return (requests - left) / (time.perf_counter() - began)


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
