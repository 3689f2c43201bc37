"""What clients ask for and what killers do: the seed decides, and only times are left to chance."""

from __future__ import annotations

import json
import math
import signal
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from benchmarks.chaos import tasks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

T = TypeVar("T")

TASK_WORKERS: Final = 4

# Those that kill a worker are rare, else workers would do nothing but start.
_DOINGS: Final = {
    "give_back": 300,
    "doze": 80,
    "say": 40,
    "tell": 40,
    tasks.POSTING: 50,
    "fail": 80,
    "recurse": 8,
    "unpicklable": 40,
    "hoard": 20,
    "block_signals": 15,
    "fork_and_return": 12,
    "fork_and_stay": 6,
    "oversleep": 10,
    "hold_the_gil": 4,
    "stop_oneself": 6,
    "leave": 5,
    "segfault": 3,
}
_HOWS: Final = {"server": 5, "stream": 4, "nowait": 1, "run": 2}
_GOODBYES: Final = {"eof": 3, "reset": 3, "half": 2}
_SIGNALS: Final = {
    (signal.SIGKILL,): 4,
    (signal.SIGSEGV,): 2,
    (signal.SIGSTOP,): 2,
    (signal.SIGSTOP, signal.SIGCONT): 2,
    (signal.SIGTERM,): 1,
}
_BURST: Final = 40


class Session(NamedTuple):
    """What one client does from its coming to its going."""

    requests: list[tuple[float, bytes]]
    """Seconds to wait, and then what to send."""
    stays: float
    """Seconds that it stays after that."""
    goodbye: str
    """``eof``, ``reset`` or ``half`` (it says that it is done, and hears the rest)."""


def sessions(random: Random, client: str) -> Iterator[Session]:
    """What a client does, time and again, with the names that its tasks bear."""
    keys = (f"{client}-{number}" for number in range(10**9))
    while True:
        requests = [
            (random.expovariate(20.0), _request(random, keys)) for _ in range(random.randint(1, 12))
        ]
        stays = random.choice([0.0, 0.05, 0.5, 2.0])
        yield Session(requests, stays, _choose(random, _GOODBYES))


def _request(random: Random, keys: Iterator[str]) -> bytes:
    is_burst = random.random() < 0.05
    do = "give_back" if is_burst else _choose(random, _DOINGS)
    options: dict[str, Any] = {}
    if random.random() < 0.25:
        options["retries"] = random.randint(1, 3)
    if random.random() < 0.1:
        options["queue_timeout"] = random.uniform(0.02, 1.0)
    if random.random() < 0.1:
        options["task_worker"] = random.randrange(TASK_WORKERS)
    if do in ("oversleep", "hold_the_gil", "stop_oneself") or random.random() < 0.2:
        options["timeout"] = random.uniform(0.05, 0.6)
    orders = []
    for _ in range(_BURST if is_burst else 1):
        order = {"key": next(keys), "do": do, "retries": options.get("retries", 0)}
        if do == tasks.POSTING:
            order["then"] = random.choices(["give_back", "say", "fail", "doze"], k=3)
        orders.append(order)
    request = {
        "how": _choose(random, _HOWS),
        "orders": orders,
        "options": options,
        "cancel": random.random() < 0.03,
        "patience": random.choice([math.inf, math.inf, 0.002, 0.1]),
    }
    return json.dumps(request).encode() + b"\n"


class Blow(NamedTuple):
    """What a killer does."""

    after: float
    """Seconds after the one before."""
    worker: int
    signals: tuple[signal.Signals, ...]
    """Several of them a little apart."""


def blows(random: Random) -> Iterator[Blow]:
    """What a killer does, one after the other."""
    while True:
        worker = random.randrange(TASK_WORKERS)
        yield Blow(random.expovariate(1.0), worker, _choose(random, _SIGNALS))


def _choose(random: Random, weights: dict[T, int]) -> T:
    return random.choices(list(weights), list(weights.values()))[0]
