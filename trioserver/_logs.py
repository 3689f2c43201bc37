"""The log on stderr of a server that runs as a process."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trioserver._errors import AppError


class _Formatter(logging.Formatter):
    """Shows the control characters that clients may have sent; only tracebacks have lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Add the traceback of a task worker, too."""
        remote = getattr(record, "remote_traceback", None)
        text = super().format(record) + (f"\n{remote.rstrip()}" if remote else "")
        return "\n".join(map(escaped, text.split("\n")))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """Keep the message in one line."""
        record.message = escaped(record.message)
        return super().formatMessage(record)


def log_app_error(logger: logging.Logger, what: str, exc: AppError) -> None:
    """Log why the app cannot do something, with its own traceback and none of ours."""
    logger.error("%s: %s", what, exc, extra={"remote_traceback": exc.remote_traceback})


def escaped(text: str) -> str:
    """``text`` in one line that a terminal only shows."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # generic only in stubs
    """Gives up a record that cannot be written: on a full disk, words about it cannot be either."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Say nothing."""


def log_to_stderr(level: str, who: str = "") -> None:
    """Log what this package says, from ``level`` on; ``who`` tells one process from others."""
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s" + f"{who}: %(message)s"))
    logger = logging.getLogger("trioserver")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def print_whole_lines() -> None:
    """Have what callbacks print be whole lines: it is a log, and shares its file with others.

    Also where Python was told to write every piece at once (PYTHONUNBUFFERED), and in a pipe.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, write_through=False)
