"""Bytes there and back: tasks that give back what they got."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks._apart import measure_apart
from benchmarks._needs import SWOOLE
from benchmarks._ours import rate_of_posted
from benchmarks._pools import (
    EXECUTOR,
    IMAP,
    LOKY,
    MISSING,
    PEBBLE,
    PLAIN,
    rate_of_imap,
    rate_of_plain,
    rate_of_pool,
)
from benchmarks._suite import OURS, Case, Goal
from benchmarks._swoole import rate as rate_of_swoole

if TYPE_CHECKING:
    from benchmarks._suite import Figure

WORKERS: Final = 2
IN_FLIGHT: Final = 16
SIZES: Final = {"1 KiB": 2**10, "64 KiB": 2**16, "1 MiB": 2**20}
_GOALS: Final = {
    "64 KiB": (Goal(4, 3, EXECUTOR, instead={SWOOLE: 2}),),
    "1 MiB": (Goal(6, 2, EXECUTOR, instead={SWOOLE: 1}),),
}


def ours(size: int) -> Figure:
    return rate_of_posted(WORKERS, IN_FLIGHT, size)


def pool(name: str, size: int) -> Figure:
    return rate_of_pool(name, WORKERS, IN_FLIGHT, bytes(size))


def imap(size: int) -> Figure:
    return rate_of_imap(WORKERS, IN_FLIGHT, bytes(size))


def plain(size: int) -> Figure:
    return rate_of_plain(WORKERS, bytes(size))


def swoole(size: int) -> Figure:
    return rate_of_swoole(WORKERS, IN_FLIGHT, size)


def _case(words: str, size: int) -> Case:
    return Case(
        f"payload-{words.replace(' ', '')}",
        f"{words} there and back, {WORKERS} workers, {IN_FLIGHT} in flight",
        "tasks/s",
        {
            OURS: partial(measure_apart, ours, size),
            **{name: partial(measure_apart, pool, name, size) for name in (EXECUTOR, LOKY, PEBBLE)},
            IMAP: partial(measure_apart, imap, size),
            PLAIN: partial(measure_apart, plain, size),
            SWOOLE: partial(measure_apart, swoole, size),
        },
        _GOALS.get(words, ()),
        missing=MISSING,
    )


CASES: Final = tuple(_case(words, size) for words, size in SIZES.items())
