"""The log on stderr: nothing that a client sends can forge it, and a full disk cannot flood it."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import pytest

from trioserver._logs import log_to_stderr

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("trioserver.test")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """The package's logger is the tests' own afterwards."""
    ours = logging.getLogger("trioserver")
    before = ours.handlers, ours.level, ours.propagate
    yield
    ours.handlers, ours.level, ours.propagate = before


def test_a_line_says_when_how_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    """Below the level, nothing is said."""
    log_to_stderr("warning")
    logger.info("hidden")
    logger.warning("seen %d", 1)
    date, time, rest = capsys.readouterr().err.split(" ", 2)

    assert len(date) == len("2026-01-01")
    assert len(time) == len("00:00:00,000")
    assert rest == "WARNING trioserver.test: seen 1\n"


def test_once_more_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Two servers in turn do not say everything twice."""
    log_to_stderr("info")
    log_to_stderr("info")
    logger.info("once")

    assert len(capsys.readouterr().err.splitlines()) == 1


def test_control_characters_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A message is one line, whatever a client has sent."""
    log_to_stderr("info")
    logger.info("from %s", "a\r\nERROR \x1b[31m\u202e\udc80é")

    assert capsys.readouterr().err.endswith(": from a\\r\\nERROR \\x1b[31m\\u202e\\udc80é\n")


def test_tracebacks_keep_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """But what an exception says is shown as a message is; so is a task worker's traceback."""
    log_to_stderr("info")
    remote = {"remote_traceback": "remote\n  line\r\n"}
    try:
        int("\x1b[31m")
    except ValueError:
        logger.exception("failed", extra=remote)
    lines = capsys.readouterr().err.splitlines()

    assert lines[0].endswith("ERROR trioserver.test: failed")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-3:] == [
        "ValueError: invalid literal for int() with base 10: '\\x1b[31m'",
        "remote",
        "  line",
    ]


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_costs_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said about it, since that could not be written either."""
    full = Full()
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", full)
        log_to_stderr("info")
        logger.error("lost")

    assert full.getvalue() == ""
