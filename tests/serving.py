"""A real server process, driven from outside as a user would."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE: Final = 30.0
"""Seconds until a condition counts as never coming true; no test depends on it otherwise."""
ROOT: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Poll ``condition`` until it holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.005)


class ServerProcess:
    """``python -m trioserver ARGUMENTS`` in ``directory``, whose output goes to files there."""

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        command: tuple[str, ...] = ("-m", "trioserver"),
        env: dict[str, str] | None = None,
        wait: bool = True,
    ) -> None:
        self.out = directory / "stdout"
        self.err = directory / "stderr"
        environment = {**os.environ, "PYTHONPATH": ROOT, **(env or {})}
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *command, *arguments],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self._children: set[int] = set()
        if wait:
            wait_until(lambda: self.is_ready or self.process.poll() is not None, "ready")
            assert self.is_ready, self.log
            self._children |= set(self.children)

    @property
    def is_ready(self) -> bool:
        return ": ready in " in self.log

    @property
    def log(self) -> str:
        return self.err.read_text()

    @property
    def printed(self) -> list[str]:
        return self.out.read_text().splitlines()

    @property
    def port(self) -> int:
        found = re.search(r"listening on \S+:(\d+)$", self.log, re.MULTILINE)
        assert found, self.log
        return int(found[1])

    @property
    def children(self) -> list[int]:
        """Pids of the direct children, without multiprocessing's resource tracker."""
        found = children_of(self.process.pid)
        self._children |= set(found)
        return found

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def ask(self, data: bytes, size: int = 65536) -> bytes:
        """Send ``data`` on a connection of its own; the first answer."""
        with self.connect() as client:
            client.sendall(data)
            return client.recv(size)

    def wait_printed(self, line: str) -> None:
        wait_until(lambda: line in self.printed, f"{line!r} on stdout")

    def pause(self) -> None:
        """Give it a moment, or less if it ends."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(0.05)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Signal the server and return its exit code."""
        self.process.send_signal(signum)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end: the exit code."""
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """End it, and see that nothing of it is left."""
        if self.process.poll() is None:
            self._children |= set(self.children)
            self.process.kill()
            self.process.wait(PATIENCE)
        wait_until(lambda: not any(map(is_running, self._children)), "no child is left")


def children_of(pid: int) -> list[int]:
    """Pids of the direct children of a process, without multiprocessing's resource tracker."""
    listed: list[str] = []
    with suppress(OSError):
        # Threads start children too, and each has a list of its own.
        for thread in Path(f"/proc/{pid}/task").iterdir():
            listed += (thread / "children").read_text().split()
    found = []
    for child in dict.fromkeys(map(int, listed)):
        with suppress(OSError):
            if "resource_tracker" not in Path(f"/proc/{child}/cmdline").read_text():
                found.append(child)
    return found


def is_running(pid: int) -> bool:
    """Whether ``pid`` is a process, and not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
