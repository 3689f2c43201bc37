"""What a signal asks a server for, be it one process or several.

======================  ==========================================================
``SIGTERM``, ``SIGINT``  stop gracefully; a second one ends at once
``SIGQUIT``              end at once
``SIGUSR1``, ``SIGHUP``  reload everything
``SIGUSR2``              reload task workers
======================  ==========================================================
"""

from __future__ import annotations

import logging
import math
import signal
from typing import TYPE_CHECKING, Final, final

import trio

from trioserver._signals import RELOAD_SIGNALS, STOP_SIGNALS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from trioserver._controls import Controls

logger = logging.getLogger("trioserver.server")

_ECHO: Final = 0.02
"""Seconds in which the same request to stop may come once more by another way."""


@final
class SignalTable:
    """Does what signals ask for.

    Until the server is ready, whatever ends it ends it at once, and reloads are kept for later.

    Args:
      end_at_once: Called to end the server without waiting for anything.
      early: Signals to reload that came before this.
    """

    def __init__(self, end_at_once: Callable[[], object], early: Iterable[int] = ()) -> None:
        self._end_at_once = end_at_once
        self._kept = [signum for signum in early if signum in RELOAD_SIGNALS]
        self._controls: Controls | None = None
        # Until when another signal to stop is the first one's echo; infinitely long ago before it.
        self._echoes_until = -math.inf

    def is_ready(self, controls: Controls) -> None:
        """The server can be told from now on."""
        self._controls = controls
        kept, self._kept = self._kept, []
        for signum in kept:
            self.hear(signum)

    async def serve(self, signals: AsyncIterator[int]) -> None:
        """Do what ``signals`` ask for, until cancelled."""
        async for signum in signals:
            self.hear(signum)

    def hear(self, signum: int) -> None:
        """Do what one signal asks for."""
        name = signal.Signals(signum).name
        if signum in RELOAD_SIGNALS:
            if self._controls is None:
                self._kept.append(signum)
            else:
                self._reload(name, self._controls, only_task_workers=signum == signal.SIGUSR2)
            return
        now = trio.current_time()
        if signum in STOP_SIGNALS and now < self._echoes_until:
            return
        is_first = self._echoes_until == -math.inf
        if signum in STOP_SIGNALS and is_first and self._controls is not None:
            logger.info("%s: stopping", name)
            # `timeout` and some supervisors signal the process and then its group: that is one
            # request, not an impatient second one.
            self._echoes_until = now + _ECHO
            self._controls.shutdown()
        else:
            logger.warning("%s: ending at once", name)
            self._end_at_once()

    def _reload(self, name: str, controls: Controls, *, only_task_workers: bool) -> None:
        try:
            controls.reload(only_task_workers=only_task_workers)
        except RuntimeError as exc:
            logger.warning("%s: no reload: %s", name, exc)
        else:
            logger.info("%s: reloading", name)
