"""The harness of the benchmarks, and that the peers do the same work as ours."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from benchmarks._needs import PeerMissingError
from benchmarks._report import json_of, text_of
from benchmarks._servers import (
    ASYNCIO_PROTOCOL,
    ASYNCIO_STREAMS,
    PLAIN_TRIO,
    Server,
    check,
    serving,
)
from benchmarks._suite import OURS, Case, Figure, Goal, Result, run_case
from benchmarks.peers._lines import MAX_LENGTH, Lines, LineTooLongError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _sigterm_as_it_was() -> Iterator[None]:
    """`Served` takes it, as programs of their own may."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def _missing() -> Figure:
    raise PeerMissingError("no module named 'theirs'")


def _broken() -> Figure:
    raise OSError("no luck")


def _run(*goals: Goal, is_lower_better: bool = False) -> Result:
    ours = iter((1.0, 30.0, 2.0))
    peers = {
        OURS: lambda: Figure(next(ours), cpu=5.0),
        "theirs": lambda: Figure(4.0, cpu=2.5),
        "absent": _missing,
        "broken": _broken,
    }
    case = Case("name", "title", "things/s", peers, goals, is_lower_better)
    return run_case(case, 3, lambda _: None)


def test_a_row_has_the_median_of_its_rounds() -> None:
    row = _run().row(OURS)
    assert row is not None
    assert (row.value, row.cpu, len(row.figures)) == (2.0, 5.0, 3)


def test_a_missing_peer_is_left_out_and_named() -> None:
    result = _run()
    assert result.missing == {"absent": "no module named 'theirs'"}
    assert result.row("absent") is None
    assert "  without absent: no module named 'theirs'" in text_of(result).splitlines()


def test_a_failing_peer_costs_only_its_own_row() -> None:
    result = _run()
    assert [row.peer for row in result.failures] == ["broken"]
    assert "  broken FAILED: OSError: no luck" in text_of(result).splitlines()
    (case,) = json_of([result], {})["cases"]
    assert [row["failure"] for row in case["rows"]] == [None, None, "OSError: no luck"]


@pytest.mark.parametrize(
    ("goal", "reached", "verdict"),
    [
        (Goal(0.5, 0.4, "theirs"), 0.5, "goal met"),
        (Goal(0.6, 0.4, "theirs"), 0.5, "floor met"),
        (Goal(0.7, 0.6, "theirs"), 0.5, "below the floor"),
        (Goal(0.4, 0.6, "theirs", at_most=True), 0.5, "floor met"),
        (Goal(0.5, 0.4, "theirs", by="cpu"), 0.5, "goal met"),
        (Goal(3.0, 4.0, at_most=True), 2.0, "goal met"),
        (Goal(1.0, 1.0, "absent"), None, "not measured"),
        (Goal(1.0, 1.0, "broken"), None, "not measured"),
    ],
)
def test_goals_are_judged(goal: Goal, reached: float | None, verdict: str) -> None:
    result = _run(goal)
    assert result.reached(goal) == reached
    assert goal.verdict(reached) == verdict
    assert text_of(result).endswith(verdict)


def test_the_lines_of_peers_have_a_maximum_length() -> None:
    lines = Lines()
    assert lines.feed(b"a\r\n\r\nb") == [b"a", b""]
    assert lines.feed(b"\r") == []
    assert lines.feed(b"\n") == [b"b"]
    assert lines.feed(b"x" * MAX_LENGTH + b"\r\n") == [b"x" * MAX_LENGTH]
    with pytest.raises(LineTooLongError):
        lines.feed(b"x" * (MAX_LENGTH + 1))


@pytest.mark.parametrize("name", [OURS, PLAIN_TRIO, ASYNCIO_STREAMS, ASYNCIO_PROTOCOL])
def test_peers_do_the_same_work(name: str) -> None:
    with serving(name) as server:  # which checks it, and once more on another connection
        check(Server(server.pid, server.port))
