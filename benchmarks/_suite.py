"""What a case is, and how all of them are run: in turn, round by round, so that ratios hold."""

from __future__ import annotations

import signal
import statistics
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

import attrs

from benchmarks._needs import PeerMissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

OURS: Final = "trioserver"
"""The name of this project among the peers of a case."""
PATIENCE: Final = 300
"""Seconds after which a peer that has not been measured in one round has failed."""

Verdict = Literal["goal met", "floor met", "below the floor", "not measured", "disturbed"]


@attrs.frozen
class Figure:
    """One measurement: ``value`` in its case's unit, ``cpu`` in µs of the server per operation.

    ``more`` is shown beside them: other numbers by name and unit, the same ones for all peers. A
    figure that other load on the machine has changed is ``is_disturbed``, and counts for nothing
    where there are others.
    """

    value: float
    cpu: float | None = None
    more: Mapping[str, float] = attrs.field(factory=dict)
    is_disturbed: bool = False


@attrs.frozen
class Goal:
    """How our median must stand to that of ``peer``, or alone if there is none.

    ``by="value"`` compares values, ``by="cpu"`` CPU time per operation. Ratios are ours / theirs of
    values, and theirs / ours of CPU time: above 1 we do more for the same. To have the ratio that
    ``instead`` gives for another peer is as good as the goal. ``ours`` is our row.
    """

    goal: float
    floor: float
    peer: str | None = None
    by: Literal["value", "cpu"] = "value"
    at_most: bool = False
    instead: Mapping[str, float] = attrs.field(factory=dict)
    ours: str = OURS

    def verdict(self, reached: float | None) -> Verdict:
        """What a ratio of ``reached`` amounts to."""
        if reached is None:
            return "not measured"
        if self._is_met(reached, self.goal):
            return "goal met"
        return "floor met" if self._is_met(reached, self.floor) else "below the floor"

    def _is_met(self, reached: float, bound: float) -> bool:
        return reached <= bound if self.at_most else reached >= bound


@attrs.frozen
class Case:
    """One thing to measure, for us and for peers.

    A peer whose measure raises `PeerMissingError` is left out, with that reason; so are those of
    which ``missing`` knows the reason from the start. One that raises anything else has failed: its
    row says so, and the run goes on.
    """

    name: str
    title: str
    unit: str
    peers: Mapping[str, Callable[[], Figure]]
    goals: tuple[Goal, ...] = ()
    is_lower_better: bool = False
    missing: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Row:
    """What the rounds of one peer gave, and how it failed if it did."""

    peer: str
    figures: tuple[Figure, ...]
    failure: str | None = None

    @property
    def is_disturbed(self) -> bool:
        """Whether other load has changed all of its figures."""
        return bool(self.figures) and all(figure.is_disturbed for figure in self.figures)

    @property
    def sound(self) -> tuple[Figure, ...]:
        """Those that medians are of: all but the disturbed, or all of these."""
        return tuple(one for one in self.figures if not one.is_disturbed) or self.figures

    @property
    def value(self) -> float | None:
        """The median value."""
        return _median(figure.value for figure in self.sound)

    @property
    def cpu(self) -> float | None:
        """The median CPU time of the server per operation, in µs."""
        return _median(figure.cpu for figure in self.sound)

    @property
    def more(self) -> dict[str, float | None]:
        """The medians of the other numbers."""
        names = dict.fromkeys(name for figure in self.sound for name in figure.more)
        return {name: _median(figure.more.get(name) for figure in self.sound) for name in names}


@attrs.frozen
class Result:
    """A case with its rows, and the peers that are missing with the reason."""

    case: Case
    rows: tuple[Row, ...]
    missing: Mapping[str, str] = attrs.field(factory=dict)

    def row(self, peer: str) -> Row | None:
        """The row of ``peer``, if it was measured."""
        return next((row for row in self.rows if row.peer == peer), None)

    def ratio(
        self, peer: str | None, by: Literal["value", "cpu"], ours: str = OURS
    ) -> float | None:
        """What a `Goal` compares; our own number if there is no ``peer``; None if unknown."""
        our_row = self.row(ours)
        our_number = None if our_row is None else getattr(our_row, by)
        if peer is None or our_number is None:
            return our_number
        theirs = self.row(peer)
        their_number = None if theirs is None else getattr(theirs, by)
        if their_number is None:
            return None
        above, below = (our_number, their_number) if by == "value" else (their_number, our_number)
        return above / below if below else None

    def reached(self, goal: Goal) -> float | None:
        """The ratio that ``goal`` is about, or our value if it names no peer; None if unknown."""
        return self.ratio(goal.peer, goal.by, goal.ours)

    def verdict(self, goal: Goal) -> Verdict:
        """What was reached of ``goal`` amounts to; other load spoils values, but not CPU time."""
        compared = self.row(goal.ours), self.row(goal.peer) if goal.peer else None
        if goal.by == "value" and any(row is not None and row.is_disturbed for row in compared):
            return "disturbed"
        for peer, bound in goal.instead.items():
            ratio = self.ratio(peer, goal.by, goal.ours)
            if ratio is not None and ratio >= bound:
                return "goal met"
        return goal.verdict(self.reached(goal))

    @property
    def failures(self) -> list[Row]:
        """The rows of peers that failed."""
        return [row for row in self.rows if row.failure is not None]


def run_case(case: Case, rounds: int, tell: Callable[[str], None]) -> Result:
    """Measure every peer once in each round.

    Args:
      rounds: Medians are of so many.
      tell: Hears what is being measured.
    """
    figures: dict[str, list[Figure]] = {name: [] for name in case.peers}
    missing = {name: case.missing[name] for name in case.peers if name in case.missing}
    failures: dict[str, str] = {}
    for number in range(1, rounds + 1):
        for name, measure in case.peers.items():
            if name in missing or name in failures:
                continue
            tell(f"{case.title}: round {number} of {rounds}: {name}")
            try:
                with _patience():
                    figures[name].append(measure())
            except PeerMissingError as exc:
                missing[name] = str(exc)
            except Exception as exc:  # noqa: BLE001  # it must not cost the figures of the others
                failures[name] = f"{type(exc).__name__}: {exc}"
    rows = tuple(
        Row(name, tuple(found), failures.get(name))
        for name, found in figures.items()
        if name not in missing
    )
    return Result(case, rows, missing)


def run(cases: Iterable[Case], rounds: int, tell: Callable[[str], None]) -> list[Result]:
    """All ``cases``, one after the other."""
    return [run_case(case, rounds, tell) for case in cases]


@contextmanager
def _patience() -> Iterator[None]:
    """Raise `TimeoutError` in here when `PATIENCE` is over."""

    def give_up(_signum: int, _frame: object) -> None:
        raise TimeoutError(f"not measured within {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _median(numbers: Iterable[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return statistics.median(known) if known else None
