"""``python -m benchmarks.chaos [--seconds N] [--seed N]``: a table; exit code 1 if all is not well.

It warms up with a part of the time, lets the server come to rest, looks at its memory and
descriptors, goes on for the rest of the time, lets it come to rest again, and looks again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Final

import attrs
import trio

from benchmarks.chaos._clients import CLIENTS, Control, Killer, be_clients, open_control
from benchmarks.chaos._plan import TASK_WORKERS
from benchmarks.chaos._verdict import LEDGER, Story
from benchmarks.chaos.app import LOG
from benchmarks.served import Served, mib

_WARM_UP: Final = 0.15
"""The part of the time that the warm-up takes."""
_MAX_GROWTH: Final = 20 * 2**20
_MAX_NAMED: Final = 10
_LOOKS: Final = 0.5
"""Seconds between two looks at the server for the line of progress."""
# What an app like this one may cause; anything else that is an error is ours.
_EXPECTED_ERRORS: Final = ("it is started again in",)
_SETTINGS: Final = (
    f"--task-worker-num={TASK_WORKERS}",
    "--max-queued-tasks=100",
    "--max-tasks-per-connection=60",
    "--task-timeout=2",
    "--task-max-request=150",
    f"--task-max-memory={96 * 2**20}",
    "--max-wait-time=20",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos")
    parser.add_argument("--seconds", type=float, default=60.0, help="of clients and killers [60]")
    parser.add_argument("--seed", type=int, default=1, help="decides what they do [1]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trioserver-chaos-") as directory:
        return _run(Path(directory), options.seconds, options.seed)


@attrs.frozen
class Sizes:
    """What a server that is at rest takes up."""

    rss: int
    descriptors: int


@attrs.define(eq=False)
class Rage:
    """What is known of the time of the clients and killers."""

    seconds: float
    seed: int
    blows: int = 0
    sizes: list[Sizes] = attrs.field(factory=list)
    unrest: list[str] = attrs.field(factory=list)
    exit_code: int | None = None
    processes_left: list[str] = attrs.field(factory=list)
    log: str = ""


def _run(directory: Path, seconds: float, seed: int) -> int:
    log = directory / "tasks.log"
    log.touch()
    rage = Rage(seconds, seed)
    with Served(directory, "benchmarks.chaos.app:App", *_SETTINGS, **{LOG: str(log)}) as server:
        trio.run(_rage, server, server.wait_ready(), rage)
        rage.exit_code = server.stop()
        rage.processes_left = server.processes_left()
        rage.log = server.log
    with log.open() as lines:
        story = Story(lines)
    return _report(rage, story)


async def _rage(server: Served, port: int, rage: Rage) -> None:
    """Let clients and killers loose, twice, and see what the server takes up after either time."""
    for number, part in enumerate((_WARM_UP, 1 - _WARM_UP)):
        async with open_control(port) as control, trio.open_nursery() as raging:
            killer = Killer()
            for client in range(CLIENTS):
                name = f"{number}.{client}"
                raging.start_soon(be_clients, port, Random(f"{rage.seed}/{name}"), name)
            raging.start_soon(killer.kill, control, Random(f"{rage.seed}/{number}"))
            raging.start_soon(_show, control, killer)
            await trio.sleep(rage.seconds * part)
            raging.cancel_scope.cancel()
        rage.blows += killer.blows
        print("\ncoming to rest", file=sys.stderr, flush=True)
        async with open_control(port) as control:  # the other one may have been cut in a word
            unrest = await control.settle()
            rage.unrest += [] if unrest is None else [unrest]
            zombies = server.zombies_left()
            rage.unrest += [f"zombies: {zombies}"] if zombies else []
            rage.sizes.append(Sizes(server.rss, server.descriptors))


async def _show(control: Control, killer: Killer) -> None:
    """Show what goes on, in one line that changes."""
    began = trio.current_time()
    while True:
        now = await control.statistics()
        line = (
            f"{trio.current_time() - began:5.1f} s: {now['posted']} accepted, "
            f"{now['queued']} queued, {now['running']} running, {now['completed']} completed, "
            f"{now['dead_workers']} workers dead, {now['connections']} connections, "
            f"{killer.blows} blows"
        )
        print(f"\r{line:110}", end="", file=sys.stderr, flush=True)
        await trio.sleep(_LOOKS)


def _report(rage: Rage, story: Story) -> int:
    """Print the table; the exit code."""
    begin, end = rage.sizes
    losses, duplicates, others = story.losses(), story.duplicates(), story.others() + rage.unrest
    errors = [
        line
        for line in rage.log.splitlines()
        if (" ERROR " in line and not any(words in line for words in _EXPECTED_ERRORS))
        or line.startswith("Traceback")
    ]
    ledger = {name: story.ledger.get(name) for name in LEDGER}
    is_well = not (losses or duplicates or others or errors or rage.processes_left)
    is_back = end.rss <= begin.rss + _MAX_GROWTH and end.descriptors <= begin.descriptors
    print(f"\nchaos of {rage.seconds:g} s, seed {rage.seed}")
    for name, value in (
        ("accepted", ledger["posted"]),
        *((f"heard of as {name}", count) for name, count in story.kinds.items()),
        ("left by their callers", len(story.left)),
        ("runs", sum(map(len, story.runs.values()))),
        ("retried", ledger["retried"]),
        ("values of progress", story.progress),
        ("posts that were refused", len(story.refused)),
        ("blows at task workers", rage.blows),
        ("deaths of task workers", rage.log.count(" died")),
        ("task workers recycled", rage.log.count(" is recycled")),
        ("ledger", ", ".join(f"{name} {count}" for name, count in ledger.items())),
        ("duplicates", len(duplicates)),
        ("losses", len(losses)),
        ("other wrongs", len(others)),
        ("errors in the server's log", len(errors)),
        ("processes left", len(rage.processes_left)),
        ("exit code of the server", rage.exit_code),
        ("RSS, begin and end", f"{mib(begin.rss)}, {mib(end.rss)}"),
        ("descriptors, begin and end", f"{begin.descriptors}, {end.descriptors}"),
    ):
        print(f"  {name:28} {value}")
    _name("duplicate", duplicates)
    _name("lost", losses)
    _name("wrong", others)
    _name("error", errors)
    _name("left", rage.processes_left)
    return 0 if is_well and is_back and rage.exit_code == 0 else 1


def _name(what: str, found: list[str]) -> None:
    for words in found[:_MAX_NAMED]:
        print(f"{what}: {words}")


if __name__ == "__main__":
    sys.exit(main())
