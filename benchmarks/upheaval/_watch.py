"""What the system says of the server's processes, second by second."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import trio

from benchmarks._processes import rss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.served import Served

_EVENT_WORKER: Final = re.compile(b"event[- ]worker")
_TASK_WORKER: Final = re.compile(rb"task worker|multiprocessing\.spawn")
"""In a command line, or in a title."""
_PERIOD: Final = 1.0
_LASTING: Final = 5
"""Samples, one after the other, after which a zombie is one that nobody buries."""
_ENOUGH: Final = 20
"""Samples; what fewer ones show is how processes begin."""
_TOLERANCE: Final = 1.10
_MORE: Final = 4 * 2**20


class ServerEndedError(Exception):
    """The server has ended by itself."""


class Watch:
    """Samples of memory and of zombies.

    Args:
      server: Whose.
    """

    def __init__(self, server: Served) -> None:
        self._server = server
        self.manager: list[int] = []
        """Bytes of memory."""
        self.event_workers: list[int] = []
        """The same, of the largest; others may just have been started."""
        self.most_zombies = 0
        self.lasting_zombies: set[int] = set()
        self._zombies: Counter[int] = Counter()

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            self._sample()
            await trio.sleep(_PERIOD)

    def _sample(self) -> None:
        manager = self._server.pid
        if self._server.has_ended:
            raise ServerEndedError
        self.manager.append(_rss(manager) or 0)
        tree = {pid: (state, line) for pid, state, line in _descendants(manager)}
        sizes = [_rss(pid) for pid, (_, line) in tree.items() if _EVENT_WORKER.search(line)]
        alive = [size for size in sizes if size]
        if alive:
            self.event_workers.append(max(alive))
        zombies = {pid for pid, (state, _) in tree.items() if state == "Z"}
        self.most_zombies = max(self.most_zombies, len(zombies))
        self._zombies = Counter({pid: self._zombies[pid] + 1 for pid in zombies})
        self.lasting_zombies |= {pid for pid, n in self._zombies.items() if n >= _LASTING}

    def growths(self) -> list[str]:
        """What has grown from the second quarter to the last one."""
        found = []
        for name, sizes in (("manager", self.manager), ("event workers", self.event_workers)):
            before, after = quarters(sizes)
            if len(sizes) >= _ENOUGH and after > before * _TOLERANCE + _MORE:
                found.append(f"RSS of the {name}: {before} before, {after} after")
        return found


def quarters(sizes: list[int]) -> tuple[int, int]:
    """The medians of the second and of the last quarter."""
    size = max(len(sizes) // 4, 1)
    return (
        int(median(sizes[size : 2 * size] or sizes or [0])),
        int(median(sizes[-size:] or [0])),
    )


def _rss(pid: int) -> int | None:
    with suppress(OSError, IndexError):
        return rss(pid)
    return None


def _descendants(pid: int) -> Iterator[tuple[int, str, bytes]]:
    """Pid, state and command line of all that a process has started, zombies too."""
    for child in _children(pid):
        with suppress(OSError):
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
            yield child, state, Path(f"/proc/{child}/cmdline").read_bytes()
            yield from _descendants(child)


def _children(pid: int) -> list[int]:
    listed: list[str] = []
    with suppress(OSError):
        # Threads start children too, and each has a list of its own.
        for thread in Path(f"/proc/{pid}/task").iterdir():
            listed += (thread / "children").read_text().split()
    return list(map(int, listed))


def workers_of(manager: int) -> tuple[list[int], list[int]]:
    """The pids of its event workers and of its task workers, starting ones too."""
    event_workers, task_workers = [], []
    for pid in _children(manager):
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if _EVENT_WORKER.search(line):
                event_workers.append(pid)
            elif _TASK_WORKER.search(line):
                task_workers.append(pid)
    return event_workers, task_workers
