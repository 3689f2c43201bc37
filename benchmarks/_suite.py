"""What a case is, and how all of them are run: in turn, round by round, so that ratios hold."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

OURS = "trioserver"
"""The name of this project among the peers of a case."""


@attrs.frozen
class Figure:
    """One measurement: ``value`` in its case's unit, ``cpu`` in µs of the server per operation."""

    value: float
    cpu: float | None = None


@attrs.frozen
class Goal:
    """How our median must stand to that of ``peer``, or alone if there is none.

    ``by="value"`` compares values, ``by="cpu"`` CPU time per operation. Ratios are ours / theirs of
    values, and theirs / ours of CPU time: above 1 we do more for the same.
    """

    goal: float
    floor: float
    peer: str | None = None
    by: Literal["value", "cpu"] = "value"
    at_most: bool = False


@attrs.frozen
class Case:
    """One thing to measure, for us and for peers; a peer that is missing here is left out."""

    name: str
    title: str
    unit: str
    peers: Mapping[str, Callable[[], Figure]]
    goals: tuple[Goal, ...] = ()
    is_lower_better: bool = False


@attrs.frozen
class Row:
    """What the rounds of one peer gave."""

    peer: str
    figures: tuple[Figure, ...]

    @property
    def value(self) -> float:
        """The median value."""
        return statistics.median(figure.value for figure in self.figures)

    @property
    def cpu(self) -> float | None:
        """The median CPU time of the server per operation, in µs."""
        known = [figure.cpu for figure in self.figures if figure.cpu is not None]
        return statistics.median(known) if known else None


@attrs.frozen
class Result:
    """A case with its rows, ours first."""

    case: Case
    rows: tuple[Row, ...]

    def row(self, peer: str) -> Row | None:
        """The row of ``peer``, if it was measured."""
        return next((row for row in self.rows if row.peer == peer), None)

    def reached(self, goal: Goal) -> float | None:
        """The ratio that ``goal`` is about, or our value if it names no peer; None if unknown."""
        ours = self.row(OURS)
        theirs = None if goal.peer is None else self.row(goal.peer)
        if ours is None or (goal.peer is not None and theirs is None):
            return None
        if theirs is None:
            return ours.value if goal.by == "value" else ours.cpu
        if goal.by == "value":
            return ours.value / theirs.value
        return None if ours.cpu is None or theirs.cpu is None else theirs.cpu / ours.cpu


def run_case(case: Case, rounds: int, tell: Callable[[str], None]) -> Result:
    """Measure every peer once in each round.

    Args:
      rounds: Medians are of so many.
      tell: Hears what is being measured.
    """
    figures: dict[str, list[Figure]] = {name: [] for name in case.peers}
    for number in range(1, rounds + 1):
        for name, measure in case.peers.items():
            tell(f"{case.title}: round {number} of {rounds}: {name}")
            figures[name].append(measure())
    return Result(case, tuple(Row(name, tuple(found)) for name, found in figures.items()))


def run(cases: Iterable[Case], rounds: int, tell: Callable[[str], None]) -> list[Result]:
    """All ``cases``, one after the other."""
    return [run_case(case, rounds, tell) for case in cases]
