"""What polite clients notice of one that floods: 50 of them, each with 100 requests a second.

The 99th percentile is the median of those of many short windows; the longest is the longest of all.
Other load on these cores makes the calm look like a flood, and the flood harmless. So where server
or generator were kept from running too often it is measured again, and at last counts as disturbed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks import _durations
from benchmarks._flood import flooding
from benchmarks._needs import SWOOLE
from benchmarks._paced import offering
from benchmarks._servers import (
    PLAIN_TRIO,
    UVLOOP_JOINED,
    UVLOOP_PROTOCOL,
    serving,
)
from benchmarks._suite import OURS, Case, Figure, Goal

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from benchmarks._paced import Paced
    from benchmarks._servers import Server

POLITE: Final = 50
RATE_EACH: Final = 100.0
_TIMES: Final = 2
"""Percentiles want more requests than means."""
_UNDISTURBED: Final = 0.02
"""The share of time for which they may be kept from running. On an idle machine it is about 1 %;
other load that takes 5 % of one core makes it 3 %, and the 99th percentile several times longer."""
_ATTEMPTS: Final = 3


def _undisturbed(measure: Callable[[str], Figure], name: str) -> Figure:
    for _ in range(_ATTEMPTS):
        figure = measure(name)
        if not figure.is_disturbed:
            break
    return figure


def _calm(name: str) -> Figure:
    with serving(name) as server, _polite(server) as offer:
        return _figure(offer())


def _flooded(name: str) -> Figure:
    # The polite are there first: how fast a flooded server accepts is another question.
    with serving(name) as server, _polite(server) as offer:
        with flooding(server) as flood:
            paced = offer()
        return _figure(paced, flood.rate)


def _polite(server: Server) -> AbstractContextManager[Callable[[], Paced]]:
    return offering(server, POLITE, POLITE * RATE_EACH, _TIMES * _durations.SECONDS)


def _figure(paced: Paced, flood: float = 0.0) -> Figure:
    return Figure(
        paced.p99 * 1e3,
        more={
            "p50 ms": paced.p50 * 1e3,
            "longest ms": paced.longest * 1e3,
            "flood, replies/s": flood,
            "generator late, p99 ms": paced.late_p99 * 1e3,
            "kept waiting, %": paced.kept_waiting * 100,
        },
        is_disturbed=paced.kept_waiting > _UNDISTURBED,
    )


def calm(name: str) -> str:
    """What the row of a server without a flood is called."""
    return f"{name}, calm"


_PEERS: Final = (OURS, PLAIN_TRIO, UVLOOP_PROTOCOL, UVLOOP_JOINED, SWOOLE)

CASES: Final = (
    Case(
        "fairness",
        f"one client floods beside {POLITE} with {RATE_EACH:.0f} requests/s each",
        "p99 ms",
        {name: partial(_undisturbed, _flooded, name) for name in _PEERS}
        | {calm(name): partial(_undisturbed, _calm, name) for name in (OURS, UVLOOP_PROTOCOL)},
        (
            Goal(1.5, 3.0, calm(OURS), at_most=True),
            Goal(1 / 20, 1 / 5, UVLOOP_PROTOCOL, at_most=True),
            Goal(1 / 20, 1 / 5, UVLOOP_JOINED, at_most=True),
            Goal(1 / 20, 1 / 5, SWOOLE, at_most=True),
        ),
        is_lower_better=True,
    ),
)
