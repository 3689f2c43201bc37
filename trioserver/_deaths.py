"""How processes end, in words, and after how long one that keeps ending is started again."""

from __future__ import annotations

import logging
from typing import Final

_FIRST: Final = 0.1
_MOST: Final = 5.0
_MOST_DOUBLINGS: Final = 10


def how_it_ended(code: int | None) -> str:
    """``code`` as `subprocess` has it: negative for a signal."""
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


class BackOff:
    """Of a place whose processes die at their start: each waits twice as long as the last."""

    def __init__(self) -> None:
        self._deaths = 0
        self._cause: str | None = None

    def forget(self) -> None:
        """The last one did not die at its start."""
        self._deaths = 0
        self._cause = None

    def seconds_after(
        self, logger: logging.Logger, why: str, cause: str, traceback: str | None
    ) -> float:
        """How long to wait after one more such death, which is logged.

        Args:
          logger: Where.
          why: It died, in words.
          cause: What its death has in common with others.
          traceback: What it raised, if that is known.
        """
        self._deaths += 1
        seconds = min(_FIRST * 2.0 ** min(self._deaths - 1, _MOST_DOUBLINGS), _MOST)
        # One that keeps dying for the same reason says so once, not every few seconds for ever.
        logger.log(
            logging.DEBUG if cause == self._cause else logging.ERROR,
            "%s; it is started again in %.1f s, and after longer times if that goes on",
            why,
            seconds,
            extra={"remote_traceback": traceback},
        )
        self._cause = cause
        return seconds
