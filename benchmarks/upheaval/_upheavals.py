"""What happens to the server: processes of its are killed, or its code changes."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import trio

from benchmarks.served import PATIENCE
from benchmarks.upheaval._watch import workers_of

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from benchmarks.served import Served
    from benchmarks.upheaval._clients import Clients

EVENT_WORKERS: Final = 3
TASK_WORKERS: Final = 2
APP: Final = "upheaval_app"
"""The module that is served."""
_KILL_PERIOD: Final = 0.5
_RELOAD_PERIOD: Final = 2.0
_POLL: Final = 0.05


def write_app(directory: Path, marker: int) -> None:
    """Put the app's code in place, in one step."""
    fresh = directory / f"{APP}.new"
    fresh.write_text(
        f"import benchmarks.upheaval.app as app\nclass App(app.App):\n    marker = {marker}\n"
    )
    fresh.rename(directory / f"{APP}.py")


class Upheaval:
    """One kind of it, and what it has done.

    Args:
      server: Where.
      clients: Of whom one asks the server how it is.
      directory: Where the app is.
    """

    def __init__(self, server: Served, clients: Clients, directory: Path) -> None:
        self._server = server
        self._clients = clients
        self._directory = directory
        self.killed: dict[int, float] = {}
        """Event workers by pid, and when."""
        self.killed_task_workers = 0
        self.written: dict[int, float] = {}
        """Markers, and when they were put in place."""

    async def kill(self, random: Random) -> None:
        """Kill a process twice a second, until cancelled."""
        next_at = trio.current_time()
        while True:
            next_at += _KILL_PERIOD
            await trio.sleep_until(next_at)
            event_workers, task_workers = workers_of(self._server.pid)
            if not event_workers + task_workers:
                continue
            pid = random.choice(event_workers + task_workers)
            if pid in event_workers:
                self.killed.setdefault(pid, time.monotonic())
            else:
                self.killed_task_workers += 1
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def reload(self) -> None:
        """Change the code and have it reloaded, every two seconds, until cancelled."""
        while True:
            marker = len(self.written) + 1
            write_app(self._directory, marker)
            self.written[marker] = time.monotonic()
            self._server.signal(signal.SIGUSR1)
            await trio.sleep(_RELOAD_PERIOD)

    async def settle(self) -> str | None:
        """Return when nothing is left to do, all processes live, and they run the newest code.

        Returns:
          What is not so if that lasts too long, None if all is well.
        """
        deadline = trio.current_time() + PATIENCE
        rests = 0
        answer: dict[str, Any] | None = None
        while trio.current_time() < deadline:
            answer = await self._clients.ask("statistics")
            # Each event worker answers now and then, and each of several answers must be so.
            is_at_rest = answer is not None and self._is_at_rest(answer)
            rests = rests + 1 if is_at_rest else 0
            if rests > 2 * EVENT_WORKERS:
                return None
            await trio.sleep(_POLL)
        return f"the server does not come to rest: {answer}"

    def _is_at_rest(self, answer: dict[str, Any]) -> bool:
        now = answer["numbers"]
        running = [one["id"] for one in now["event_workers"] if one["state"] == "running"]
        return bool(
            running == list(range(EVENT_WORKERS)) == [one["id"] for one in now["event_workers"]]
            and now["idle_workers"] == TASK_WORKERS == len(now["workers"])
            and now["queued"] == now["running"] == 0
            and now["connections"] == 1
            and not now["is_reloading"]
            and answer["marker"] == max(self.written, default=0)
        )
