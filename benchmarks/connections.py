"""What connections cost: CPU time a request as they grow in number, and memory while they idle."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import _durations
from benchmarks._closed_loop import figure_of
from benchmarks._needs import SWOOLE, PeerMissingError
from benchmarks._paced import offering
from benchmarks._servers import (
    ASYNCIO_PROTOCOL,
    PLAIN_TRIO,
    UVLOOP_PROTOCOL,
    serving,
)
from benchmarks._suite import OURS, Case, Figure, Goal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

COUNTS: Final = (10, 100, 1_000, 10_000)
MOST: Final = COUNTS[-1]
RATE: Final = 10_000.0
"""Requests per second over all connections, however many there are."""
_FIRST: Final = 10
_SPARE_FILES: Final = 200
_REQUEST: Final = b"PING\r\n"
_REPLY: Final = b"+PONG\r\n"


def _busy(name: str, connections: int) -> Figure:
    """Each connection sends its next request when it has its reply."""
    _need_files(connections + _SPARE_FILES)
    with serving(name) as server:
        figure = figure_of(server, connections, 1)
    assert figure.cpu is not None
    return Figure(figure.cpu, more={"requests/s": figure.value})


def _paced(name: str, connections: int) -> Figure:
    """They send on schedule, so that the server sleeps in between, as most do most of the time."""
    _need_files(connections + _SPARE_FILES)
    with serving(name) as server, offering(server, connections, RATE, _durations.SECONDS) as offer:
        paced = offer()
    return Figure(
        paced.server_cpu / paced.requests * 1e6,
        more={
            "p50 ms": paced.p50 * 1e3,
            "p99 ms": paced.p99 * 1e3,
            "generator's core in use, %": paced.own_cpu * 100,
        },
    )


def _idle(name: str) -> Figure:
    """Each has asked once, as idle clients have."""
    _need_files(MOST + _SPARE_FILES)
    with serving(name) as server, ExitStack() as stack:
        for _ in range(_FIRST):  # whatever the server allocates only once
            _ask(stack.enter_context(socket.create_connection(("127.0.0.1", server.port))))
        before = server.rss
        for _ in range(MOST - _FIRST):
            _ask(stack.enter_context(socket.create_connection(("127.0.0.1", server.port))))
        return Figure((server.rss - before) / (MOST - _FIRST) / 1024)


def _ask(sock: socket.socket) -> None:
    sock.sendall(_REQUEST)
    got = b""
    while len(got) < len(_REPLY):
        if not (data := sock.recv(len(_REPLY) - len(got))):
            raise ConnectionError("the server has closed a connection")
        got += data


def _need_files(count: int) -> None:
    """Let this process, and servers that it starts from now on, have so many files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise PeerMissingError(f"{hard} open files are the limit here, {count} are needed")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def _row(name: str, connections: int) -> str:
    return name if connections == MOST else f"{name}, {connections:,} connections"


_SLEEPING: Final = (OURS, UVLOOP_PROTOCOL)
"""When servers sleep in between, what wakes them costs most, and that is alike for all."""
_PEERS: Final = (OURS, PLAIN_TRIO, ASYNCIO_PROTOCOL, UVLOOP_PROTOCOL, SWOOLE)


def _growth(
    case: str, title: str, measure: Callable[[str, int], Figure], peers: Iterable[str]
) -> Case:
    return Case(
        case,
        title,
        "CPU µs a request",
        {
            _row(name, connections): partial(measure, name, connections)
            for name in peers
            for connections in (reversed(COUNTS) if name == OURS else (MOST, COUNTS[0]))
        },
        (Goal(1.3, 1.8, _row(OURS, COUNTS[0]), at_most=True),),
        is_lower_better=True,
    )


CASES: Final = (
    _growth("growth-busy", f"full load from {MOST:,} connections and fewer", _busy, _PEERS),
    _growth(
        "growth-paced",
        f"{RATE:,.0f} requests/s over {MOST:,} connections and fewer",
        _paced,
        _SLEEPING,
    ),
    Case(
        "idle-connections",
        f"{MOST:,} connections that have asked once",
        "KiB of RSS each",
        {name: partial(_idle, name) for name in _PEERS},
        (Goal(4.0, 6.0, at_most=True),),
        is_lower_better=True,
    ),
)
