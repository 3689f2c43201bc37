"""A real server in a process of its own, and what the system says of it and of its offspring."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks._processes import bearing, rss

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

ROOT: Final = Path(__file__).parent.parent
PATIENCE: Final = 60.0
"""Seconds until something counts as never coming; no result depends on it otherwise."""
_SHORT_PATIENCE: Final = 10.0
_MARK: Final = "BENCHMARK_MARK"


class Served:
    """``python -m trioserver APP ARGUMENTS``, whose log goes to a file in ``directory``.

    What its tasks print is thrown away. It carries a mark in its environment, which all processes
    that descend from it inherit, wherever they go.
    """

    def __init__(self, directory: Path, app: str, *arguments: str, **env: str) -> None:
        self._mark = f"{_MARK}={secrets.token_hex(16)}"
        name, _, token = self._mark.partition("=")
        self._log = directory / "server.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # this very program
                [sys.executable, "-m", "trioserver", app, "--bind", "127.0.0.1:0", *arguments],
                cwd=directory,
                # setproctitle would write titles over the mark.
                env={**os.environ, "PYTHONPATH": str(ROOT), name: token, "SPT_NOENV": "1", **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def __enter__(self) -> Self:
        # `timeout` and the like end this program so, and the server must end with it; Trio knows
        # how to be interrupted.
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def wait_ready(self) -> int:
        """Wait until it accepts; the port."""

        def is_ready() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server did not start:\n{self.log}")
            return ": ready in " in self.log

        wait_until(is_ready, "the server is ready")
        found = re.search(r"listening on \S+:(\d+)$", self.log, re.MULTILINE)
        assert found is not None, self.log
        return int(found[1])

    def stop(self) -> int:
        """Have it stop gracefully, or end it if it does not; the exit code."""
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(PATIENCE)
        self._process.kill()
        return self._process.wait()

    def signal(self, signum: int) -> None:
        """Signal the process that was started, which is the manager if there is one."""
        self._process.send_signal(signum)

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether that one has ended."""
        return self._process.poll() is not None

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text(errors="replace")

    @property
    def rss(self) -> int:
        """Bytes that its process holds in memory, without its task workers."""
        return rss(self._process.pid)

    @property
    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def kinds_of_descriptors(self) -> Counter[str]:
        """What it has open: how many of files, sockets and so on."""
        found: Counter[str] = Counter()
        for entry in Path(f"/proc/{self._process.pid}/fd").iterdir():
            with suppress(OSError):  # it is closed by now
                found[re.sub(r"\d+", "", str(entry.readlink()))] += 1
        return found

    def zombies_left(self) -> list[int]:
        """Children that have ended, and that the server has not noticed in time."""
        with suppress(TimeoutError):
            wait_until(lambda: not self._zombies(), "all dead are noticed", _SHORT_PATIENCE)
        return self._zombies()

    def _zombies(self) -> list[int]:
        children: list[str] = []
        # Threads start children too, and each has a list of its own.
        for thread in Path(f"/proc/{self._process.pid}/task").iterdir():
            children += (thread / "children").read_text().split()
        found = []
        for child in map(int, children):
            with suppress(OSError):
                stat = Path(f"/proc/{child}/stat").read_text()
                if stat.rpartition(")")[2].split()[0] == "Z":
                    found.append(child)
        return found

    def processes(self) -> list[str]:
        """Those that bear the mark: the server and whatever descends from it."""
        found = []
        for pid in bearing(self._mark):
            with suppress(OSError):  # it has ended since
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                found.append(f"{pid} {line.decode(errors='replace').strip()}")
        return found

    def processes_left(self) -> list[str]:
        """Those that still live when all have had the time to end."""
        with suppress(TimeoutError):
            wait_until(lambda: not self.processes(), "no process is left", _SHORT_PATIENCE)
        return self.processes()


def wait_until(
    condition: Callable[[], object], what: str, patience: float = PATIENCE, every: float = 0.02
) -> None:
    """Poll ``condition`` until it holds.

    Raises:
      TimeoutError: if it does not within ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"never came true: {what}")
        time.sleep(every)


def mib(size: int) -> str:
    """``size`` bytes in words."""
    return f"{size / 2**20:.1f} MiB"
