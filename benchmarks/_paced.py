"""Load at a fixed rate: ``python -m benchmarks._paced PORT PID`` and a few options.

Each connection sends on schedule, whether it has its last reply or not, and the schedule spreads
all of them evenly, so that the server sees the same load from 10 connections as from 10,000. Prints
a `Paced` as JSON: how long replies took, how late this program itself was, and what it used.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import select
import socket
import statistics
import time
from collections import defaultdict, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import attrs

from benchmarks._cores import cpu_seconds, kept_waiting
from benchmarks._generators import Generator, wait_to_begin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks._servers import Server

_REQUEST: Final = b"PING\r\n"
_REPLY_SIZE: Final = len(b"+PONG\r\n")
_READ_SIZE: Final = 64 * 1024
_MAX_EVENTS: Final = 1024
WINDOW: Final = 0.1
"""Seconds. A moment in which something else ran on this core spoils one window, not the figure."""
_PATIENCE: Final = 20.0
"""Seconds that replies may take after the last request; a server that needs more has failed."""


@attrs.frozen
class Paced:
    """What was found."""

    requests: int
    p50: float
    """Seconds from sending to having the reply."""
    p99: float
    """Of those that were sent within `WINDOW`; the median of all windows."""
    longest: float
    late_p99: float
    """Seconds that requests were sent after they were due: how exact this program is."""
    server_cpu: float
    """Seconds that the server used."""
    own_cpu: float
    """The share of a core that this program used."""
    kept_waiting: float
    """The share of time in which it or the server was kept from running by something else."""


class Client:
    """One connection."""

    __slots__ = ("_partial", "sent", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sent: deque[float] = deque()
        self._partial = 0

    def send(self) -> None:
        """Send a request."""
        if self.sock.send(_REQUEST) != len(_REQUEST):
            raise ConnectionError("there is no room for a request of some bytes")
        self.sent.append(time.perf_counter())

    def receive(self, replies: list[tuple[float, float]]) -> int:
        """Take what is there; how many replies this ends."""
        size = len(self.sock.recv(_READ_SIZE))
        now = time.perf_counter()
        if not size:
            raise ConnectionError("the server has closed a connection")
        count, self._partial = divmod(self._partial + size, _REPLY_SIZE)
        for _ in range(count):
            sent = self.sent.popleft()
            replies.append((sent, now - sent))
        return count


class Load:
    """All connections, and when which of them sends."""

    def __init__(self, port: int, connections: int, rate: float) -> None:
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._rate = rate
        self.replies: list[tuple[float, float]] = []
        """When a request was sent, and how long its reply took."""
        self.lateness: list[float] = []
        for _ in range(connections):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._clients[sock.fileno()] = Client(sock)
            self._epoll.register(sock, select.EPOLLIN)

    def run(self, requests: int) -> None:
        """Send so many, and wait for the replies."""
        self.replies.clear()
        self.lateness.clear()
        clients = list(self._clients.values())
        began = time.perf_counter()
        sent = answered = 0
        while answered < requests:
            now = time.perf_counter()
            due = began + sent / self._rate
            while sent < requests and due <= now:
                clients[sent % len(clients)].send()
                self.lateness.append(now - due)
                sent += 1
                due = began + sent / self._rate
            if sent == requests and now > due + _PATIENCE:
                raise TimeoutError(f"{requests - answered} of {requests} replies never came")
            # An epoll waits for whole milliseconds, which is too coarse.
            select.select([self._epoll], [], [], max(0.0, min(due - now, 1.0)) or 1e-4)
            for fd, _ in self._epoll.poll(0, _MAX_EVENTS):
                answered += self._clients[fd].receive(self.replies)


@contextmanager
def offering(
    server: Server, connections: int, rate: float, seconds: float
) -> Iterator[Callable[[], Paced]]:
    """Connect to ``server``, and warm up; what is yielded then does the rest, and waits for it."""
    options = {"connections": connections, "rate": rate, "seconds": seconds}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with Generator(__name__, server.port, server.pid, *arguments) as generator:

        def offer() -> Paced:
            generator.begin()
            return Paced(**json.loads(generator.result()))

        yield offer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks._paced")
    parser.add_argument("port", type=int)
    parser.add_argument("pid", type=int)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    load = Load(options.port, options.connections, options.rate)
    # Every connection has sent something before it counts.
    load.run(max(options.connections, int(options.rate * min(options.seconds, 0.3))))
    gc.collect()
    gc.disable()
    wait_to_begin()
    kept = kept_waiting(options.pid) + kept_waiting(os.getpid())
    server, own, began = cpu_seconds([options.pid]), time.process_time(), time.perf_counter()
    load.run(int(options.rate * options.seconds))
    server, own = cpu_seconds([options.pid]) - server, time.process_time() - own
    elapsed = time.perf_counter() - began
    kept = kept_waiting(options.pid) + kept_waiting(os.getpid()) - kept
    latencies, lateness = sorted(latency for _, latency in load.replies), sorted(load.lateness)
    paced = Paced(
        requests=len(latencies),
        p50=_quantile(latencies, 0.5),
        p99=_p99_of_windows(load.replies),
        longest=latencies[-1],
        late_p99=_quantile(lateness, 0.99),
        server_cpu=server,
        own_cpu=own / elapsed,
        kept_waiting=kept / elapsed,
    )
    print(json.dumps(attrs.asdict(paced)))


def _p99_of_windows(replies: list[tuple[float, float]]) -> float:
    windows: defaultdict[int, list[float]] = defaultdict(list)
    began = min(sent for sent, _ in replies)
    for sent, latency in replies:
        windows[int((sent - began) / WINDOW)].append(latency)
    return statistics.median(_quantile(sorted(window), 0.99) for window in windows.values())


def _quantile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))]


if __name__ == "__main__":
    main()
