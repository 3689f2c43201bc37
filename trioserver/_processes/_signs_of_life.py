"""Whether an event worker answers: what is asked for while it lives, and what its silence means."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = logging.getLogger("trioserver.manager")

_BEAT: Final = 1.0
"""Seconds between two signs of life that are asked for, at the most."""
_COMPLAINT: Final = 1 / 3
"""The part of its time after which one that is silent is complained of."""


class SignsOfLife:
    """Of one event worker.

    Args:
      worker: Its name, when it is asked for.
      ask: Asks for a sign; `heard` must follow.
      frames: Its stack of now, as `StackFile.read` has it.
    """

    def __init__(
        self,
        worker: object,
        ask: Callable[[], object],
        frames: Callable[[], Awaitable[list[str]]],
    ) -> None:
        self._worker = worker
        self._ask = ask
        self._frames = frames
        self.is_silent = False
        """Whether a sign was asked for and has not come."""
        # For how many beats.
        self._beats = 0

    def probe(self) -> None:
        """Ask for one."""
        self.is_silent = True
        self._ask()

    def heard(self) -> None:
        """Anything has come from it."""
        self.is_silent = False

    async def watch(self, worker_timeout: float, give_up: Callable[[], object]) -> None:
        """Ask again and again; after so many seconds of silence call ``give_up``, and return."""
        complaint = worker_timeout * _COMPLAINT
        beat = min(_BEAT, worker_timeout / 4)
        while True:
            self.probe()
            # Beats are counted, and not seconds: a manager that was stopped itself has not waited.
            self._beats = 0
            await trio.sleep(beat)
            while self.is_silent:
                self._beats += 1
                silence = self._beats * beat
                if silence - beat < complaint <= silence:
                    await self._complain(silence)
                if silence >= worker_timeout:
                    logger.error(
                        "%s has not answered for %.1f s: it is replaced", self._worker, silence
                    )
                    give_up()
                    return
                await trio.sleep(beat)
            if self._beats * beat >= complaint:
                logger.info("%s answers again", self._worker)

    async def _complain(self, silence: float) -> None:
        """Say that it does not answer, and what it does in place of that."""
        try:
            doing = "\n".join(["it is at (most recent call first):", *await self._frames()])
        except RuntimeError as exc:  # it is stopped
            doing = str(exc)
        logger.warning(
            "%s has not answered for %.1f s",
            self._worker,
            silence,
            extra={"remote_traceback": doing},
        )
