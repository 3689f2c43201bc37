"""Bytes there and back: tasks that give back what they got."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from benchmarks._ours import rate_of_same
from benchmarks._parts import one
from benchmarks._pools import (
    EXECUTOR,
    LOKY,
    MISSING,
    PEBBLE,
    PLAIN,
    rate_of_imap,
    rate_of_plain,
    rate_of_pool,
)
from benchmarks._suite import OURS, Case, Goal
from benchmarks._swoole import SWOOLE
from benchmarks._swoole import rate as rate_of_swoole

if TYPE_CHECKING:
    from benchmarks._suite import Figure

WORKERS: Final = 2
IN_FLIGHT: Final = 16
SIZES: Final = {"1 KiB": 2**10, "64 KiB": 2**16, "1 MiB": 2**20}
_GOALS: Final = {
    "64 KiB": (Goal(4, 3, EXECUTOR),),
    "1 MiB": (Goal(6, 2, EXECUTOR),),
}
IMAP: Final = "Pool.imap, chunksize 1"


def ours(size: int) -> dict[str, Figure]:
    return {OURS: rate_of_same(WORKERS, IN_FLIGHT, bytes(size), by_app=False)}


def pool(name: str, size: int) -> dict[str, Figure]:
    return {name: rate_of_pool(name, WORKERS, IN_FLIGHT, bytes(size))}


def imap(size: int) -> dict[str, Figure]:
    return {IMAP: rate_of_imap(WORKERS, IN_FLIGHT, bytes(size))}


def plain(size: int) -> dict[str, Figure]:
    return {PLAIN: rate_of_plain(WORKERS, bytes(size))}


def swoole(size: int) -> dict[str, Figure]:
    return {SWOOLE: rate_of_swoole(WORKERS, IN_FLIGHT, size)}


def _case(words: str, size: int) -> Case:
    pools = [name for name in (EXECUTOR, LOKY, PEBBLE) if name not in MISSING]
    return Case(
        f"payload-{words.replace(' ', '')}",
        f"{words} there and back, {WORKERS} workers, {IN_FLIGHT} in flight",
        "tasks/s",
        {
            OURS: one(ours, size),
            **{name: one(pool, name, size) for name in pools},
            IMAP: one(imap, size),
            PLAIN: one(plain, size),
            **({} if SWOOLE in MISSING else {SWOOLE: one(swoole, size)}),
        },
        _GOALS.get(words, ()),
    )


CASES: Final = tuple(_case(words, size) for words, size in SIZES.items())
