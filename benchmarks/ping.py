"""Requests per second: ``PING`` in, ``+PONG`` out, one awaited handler call a frame."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks._load import load
from benchmarks._servers import (
    ASYNCIO_STREAMS,
    PLAIN_TRIO,
    SERVERS,
    UVLOOP_JOINED,
    UVLOOP_PROTOCOL,
    UVLOOP_STREAMS,
    serving,
)
from benchmarks._suite import Case, Goal

if TYPE_CHECKING:
    from benchmarks._suite import Figure

USUAL: Final = 50
STREAMS: Final = (ASYNCIO_STREAMS, UVLOOP_STREAMS)
_GOALS: Final = {
    (50, 1): (
        Goal(1.0, 0.85, UVLOOP_PROTOCOL, by="cpu"),
        Goal(1.5, 1.5, PLAIN_TRIO, by="cpu"),
    ),
    (50, 16): (
        Goal(1.0, 0.6, UVLOOP_JOINED, by="cpu"),
        Goal(6.0, 4.0, UVLOOP_PROTOCOL, by="cpu"),
    ),
    (1000, 1): (
        Goal(1.0, 0.9, UVLOOP_PROTOCOL, by="cpu"),
        Goal(2.0, 2.0, PLAIN_TRIO, by="cpu"),
    ),
}


def _measure(name: str, connections: int, pipeline: int) -> Figure:
    with serving(name) as server:
        return load(server, connections, pipeline)


def _case(connections: int, pipeline: int) -> Case:
    # How streams compare with protocols does not depend on the number of connections.
    peers = [name for name in SERVERS if connections == USUAL or name not in STREAMS]
    plural = "" if connections == 1 else "s"
    return Case(
        f"ping-{connections}-{pipeline}",
        f"PING, {connections:,} connection{plural}, pipeline {pipeline}",
        "requests/s",
        {name: partial(_measure, name, connections, pipeline) for name in peers},
        _GOALS.get((connections, pipeline), ()),
    )


CASES: Final = tuple(
    _case(connections, pipeline) for connections in (1, USUAL, 1000) for pipeline in (1, 16)
)
