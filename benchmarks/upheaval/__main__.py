"""``python -m benchmarks.upheaval --mode kill|reload [--seconds N] [--seed N]``.

A table; exit code 1 if all is not well. Under clients that connect again and again,

``kill``    twice a second a random event or task worker is killed. No connection may be refused, or
            cut unless its event worker was killed; every task of those that were not killed ends
            exactly once.
``reload``  every 2 seconds the app's code changes, and the server is told so. No connection may be
            refused, reset, or closed within an answer or before one to a request that was read;
            every task completes once, and runs once; and the newest code answers in the end.

Before it and after it the server comes to rest, and must have as many descriptors open; meanwhile
its memory stays level, and no zombie lasts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Final

import attrs
import trio

from benchmarks.served import Served, mib
from benchmarks.upheaval._clients import CLIENTS, Clients, Cut, Findings
from benchmarks.upheaval._upheavals import (
    APP,
    EVENT_WORKERS,
    TASK_WORKERS,
    Upheaval,
    write_app,
)
from benchmarks.upheaval._verdict import Story
from benchmarks.upheaval._watch import ServerEndedError, Watch, quarters
from benchmarks.upheaval.app import LOGS

_MAX_NAMED: Final = 10
# What a kill may cause; anything else that is an error is ours.
_EXPECTED_ERRORS: Final = ("is started again in", "of which nobody will hear")
_SETTINGS: Final = (
    f"--worker-num={EVENT_WORKERS}",
    f"--task-worker-num={TASK_WORKERS}",
    "--max-wait-time=2",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upheaval")
    parser.add_argument("--mode", choices=("kill", "reload"), required=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="of it [60]")
    parser.add_argument("--seed", type=int, default=1, help="decides who is hit, and more [1]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trioserver-upheaval-") as directory:
        return _run(Path(directory), options.mode, options.seconds, options.seed)


@attrs.define(eq=False)
class Times:
    """What is known of the time of the upheaval."""

    mode: str
    seconds: float
    seed: int
    findings: Findings = attrs.field(factory=Findings)
    upheaval: Upheaval | None = None
    watch: Watch | None = None
    descriptors: list[Counter[str]] = attrs.field(factory=list)
    unrest: list[str] = attrs.field(factory=list)
    exit_code: int | None = None
    processes_left: list[str] = attrs.field(factory=list)
    log: str = ""

    @property
    def is_peaceful(self) -> bool:
        """Whether nobody is killed."""
        return self.mode == "reload"


def _run(directory: Path, mode: str, seconds: float, seed: int) -> int:
    logs = directory / "logs"
    logs.mkdir()
    write_app(directory, 0)
    times = Times(mode, seconds, seed)
    # Code that changes within a second, and keeps its size, is not seen where it was compiled to.
    env = {LOGS: str(logs), "PYTHONDONTWRITEBYTECODE": "1"}
    with Served(directory, f"{APP}:App", *_SETTINGS, **env) as server:
        try:
            trio.run(_live_through, times, server, server.wait_ready(), directory)
        except* (OSError, ServerEndedError) as group:
            times.unrest.append(f"the server has ended: {group.exceptions}")
        times.exit_code = server.stop()
        times.processes_left = server.processes_left()
        times.log = server.log
    assert times.upheaval is not None
    killed, left = times.upheaval.killed, times.findings.left
    return _report(times, Story(logs, killed, left, is_peaceful=times.is_peaceful))


async def _live_through(times: Times, server: Served, port: int, directory: Path) -> None:
    clients = Clients(port, times.findings)
    times.upheaval = upheaval = Upheaval(server, clients, directory)
    times.watch = watch = Watch(server)
    await _rest(times, server, upheaval)
    async with trio.open_nursery() as upheavals:
        upheavals.start_soon(watch.run)
        if times.is_peaceful:
            upheavals.start_soon(upheaval.reload)
        else:
            upheavals.start_soon(upheaval.kill, Random(f"{times.seed}/kill"))
        upheavals.start_soon(_show, times)
        async with trio.open_nursery() as living:
            for number in range(CLIENTS):
                random = Random(f"{times.seed}/{number}")
                living.start_soon(clients.be, str(number), random)
            await trio.sleep(times.seconds)
            clients.are_done = True
        upheavals.cancel_scope.cancel()
    print("\ncoming to rest", file=sys.stderr, flush=True)
    await _rest(times, server, upheaval)


async def _rest(times: Times, server: Served, upheaval: Upheaval) -> None:
    """Wait until nothing goes on any more, and see what is open then."""
    unrest = await upheaval.settle()
    times.unrest += [] if unrest is None else [unrest]
    times.descriptors.append(server.kinds_of_descriptors())


async def _show(times: Times) -> None:
    """Show what goes on, in one line that changes."""
    began = trio.current_time()
    findings, upheaval = times.findings, times.upheaval
    assert upheaval is not None
    while True:
        line = (
            f"{trio.current_time() - began:5.1f} s: {findings.connections} connections, "
            f"{findings.answers} answers, {len(findings.cuts)} cut, "
            f"{len(upheaval.killed) + upheaval.killed_task_workers} killed, "
            f"code {max(findings.markers, default=0)} of {len(upheaval.written)}"
        )
        print(f"\r{line:110}", end="", file=sys.stderr, flush=True)
        await trio.sleep(0.5)


def _report(times: Times, story: Story) -> int:
    """Print the table; the exit code."""
    findings, upheaval, watch = times.findings, times.upheaval, times.watch
    assert upheaval is not None
    assert watch is not None
    idle_closes = [cut for cut in findings.cuts if not cut.unanswered and not cut.rest]
    unread = [cut for cut in findings.cuts if cut.unanswered and not cut.rest and story.unread(cut)]
    cuts = _unexcused(times, story)
    begin, end = (*times.descriptors, Counter(), Counter())[:2]
    wrongs = {
        "refused": findings.refused,
        "cut": [str(cut) for cut in cuts],
        "lost": story.losses(),
        "duplicate": story.duplicates(),
        "wrong": [
            *findings.wrong,
            *story.others(),
            *times.unrest,
            *_missing_workers(findings),
            *watch.growths(),
            *(f"zombie {pid}" for pid in watch.lasting_zombies),
            *_more_descriptors(begin, end),
            *_wrong_exit(times),
        ],
        "error": _errors(times),
        "left": times.processes_left,
    }
    delays = [
        findings.markers[marker] - at
        for marker, at in upheaval.written.items()
        if marker in findings.markers
    ]
    print(f"\nupheaval by {times.mode} of {times.seconds:g} s, seed {times.seed}")
    for name, value in (
        ("connections", findings.connections),
        ("answers", findings.answers),
        ("event workers killed", len(upheaval.killed)),
        ("task workers killed", upheaval.killed_task_workers),
        ("codes written", len(upheaval.written)),
        ("reloads done", times.log.count(" reloaded event and task workers")),
        ("codes seen in answers", len(findings.markers)),
        ("slowest code to be seen", f"{max(delays, default=0.0):.1f} s"),
        ("tasks accepted", len(story.posted)),
        *((f"ended as {kind}", count) for kind, count in sorted(story.kinds.items())),
        ("of killed ones, unheard", story.unheard()),
        ("runs", sum(map(len, story.runs.values()))),
        ("connections that were cut", len(findings.cuts)),
        ("closed between requests", len(idle_closes)),
        ("closed on unread requests", len(unread)),
        ("most zombies at a time", watch.most_zombies),
        ("RSS of the manager", " to ".join(map(mib, quarters(watch.manager)))),
        ("RSS of the largest event worker", " to ".join(map(mib, quarters(watch.event_workers)))),
        ("descriptors, begin and end", f"{begin.total()}, {end.total()}"),
        ("exit code of the server", times.exit_code),
        ("refused connections", len(wrongs["refused"])),
        ("cut connections, not excused", len(wrongs["cut"])),
        ("losses", len(wrongs["lost"])),
        ("duplicates", len(wrongs["duplicate"])),
        ("other wrongs", len(wrongs["wrong"])),
        ("errors in the server's log", len(wrongs["error"])),
        ("processes left", len(wrongs["left"])),
    ):
        print(f"  {name:32} {value}")
    for what, found in wrongs.items():
        for words in found[:_MAX_NAMED]:
            print(f"{what}: {words}")
    return 1 if any(wrongs.values()) else 0


def _unexcused(times: Times, story: Story) -> list[Cut]:
    """The connections that nothing excuses the end of."""
    if not times.is_peaceful:
        return [cut for cut in times.findings.cuts if not story.excused(cut)]
    return [
        cut
        for cut in times.findings.cuts
        if cut.how == "reset" or cut.rest or not story.unread(cut)
    ]


def _missing_workers(findings: Findings) -> list[str]:
    missing = set(range(EVENT_WORKERS)) - findings.workers
    return [f"event workers {sorted(missing)} have answered nobody"] if missing else []


def _more_descriptors(begin: Counter[str], end: Counter[str]) -> list[str]:
    more = end - begin
    # What multiprocessing has of a dead task worker is closed when its object is collected.
    more["pipe:[]"] -= 2 * TASK_WORKERS
    return [f"descriptors: {begin} before, {end} after"] if +more else []


def _wrong_exit(times: Times) -> list[str]:
    """The exit code, unless it is right: 1 where the log says that something was cut, else 0."""
    expected = int(" were cut" in times.log or ": it is killed" in times.log)
    if times.exit_code == expected and not (expected and times.is_peaceful):
        return []
    return [f"exit code {times.exit_code}"]


def _errors(times: Times) -> list[str]:
    return [
        line
        for line in times.log.splitlines()
        if (
            " ERROR " in line
            and (times.is_peaceful or not any(words in line for words in _EXPECTED_ERRORS))
        )
        or line.startswith("Traceback")
    ]


if __name__ == "__main__":
    sys.exit(main())
