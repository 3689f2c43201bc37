"""Requests to reload: one reload at a time, and after it one more if any was asked for meanwhile.

Swoole discards what is asked for during a reload, so that the newest code may not be the one that
runs in the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Reloads:
    """What was asked for and has not been done."""

    def __init__(self) -> None:
        # None: nothing; else whether task workers alone are to be reloaded.
        self._wanted: bool | None = None
        self._asked = trio.Event()
        self.is_reloading = False
        """Whether one goes on."""

    def request(self, *, only_task_workers: bool = False) -> None:
        """Ask for a reload, of everything or of task workers alone; returns at once."""
        self._wanted = only_task_workers and self._wanted is not False
        self._asked.set()

    async def run(self, reload: Callable[[bool], Awaitable[object]]) -> None:
        """Do what is asked for, until cancelled.

        Args:
          reload: Called with whether to reload task workers alone; must not raise.
        """
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            only_task_workers, self._wanted = bool(self._wanted), None
            self.is_reloading = True
            try:
                await reload(only_task_workers)
            finally:
                self.is_reloading = False
