"""Plots of what a run found, as SVG: one of each case, and one of all goals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks._report import goal_text, number_text
from benchmarks._suite import OURS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks._suite import Goal, Result

_OUR_COLOUR: Final = "#0b6e99"
_THEIR_COLOUR: Final = "#b8bfc6"
_COLOURS: Final = {
    "goal met": "#2e8540",
    "floor met": "#c78a00",
    "below the floor": "#b3261e",
    "disturbed": "#888888",
}
_WIDTH: Final = 9.0
_BAR_HEIGHT: Final = 0.32
_HEAD_HEIGHT: Final = 1.5
_WIDE_RANGE: Final = 100
"""Beyond such a ratio of the longest bar to the shortest, only logarithms show both."""


def write_plots(results: Iterable[Result], footer: str, directory: Path) -> None:
    """Write ``goals.svg``, and for each case one that bears its name, with ``footer`` below."""
    # So that the same figures give the same file.
    with mpl.rc_context({"svg.hashsalt": OURS, "svg.fonttype": "none"}):
        reached = []
        for result in results:
            if any(row.value is not None for row in result.rows):
                _save(_plot_case(result), footer, directory / f"{result.case.name}.svg")
            reached += [
                (result, goal) for goal in result.case.goals if result.reached(goal) is not None
            ]
        if reached:
            _save(_plot_goals(reached), footer, directory / "goals.svg")


def _save(figure: Figure, footer: str, path: Path) -> None:
    figure.supxlabel(footer, fontsize=6, color="#666666", x=0.01, ha="left")
    figure.savefig(path, metadata={"Date": None})


def _plot_case(result: Result) -> Figure:
    rows = [row for row in result.rows if row.value is not None]
    height = _HEAD_HEIGHT + _BAR_HEIGHT * len(rows)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.suptitle(result.case.title, fontsize=10)
    names = [row.peer for row in rows]
    better = "less is better" if result.case.is_lower_better else "more is better"
    if any(row.cpu is not None for row in rows):
        left, right = figure.subplots(1, 2, sharey=True)
        _bars(right, names, [row.cpu for row in rows], "CPU µs an operation, less is better")
    else:
        left = figure.subplots()
    _bars(left, names, [row.value for row in rows], f"{result.case.unit}, {better}")
    left.invert_yaxis()
    return figure


def _bars(axes: Axes, names: list[str], values: list[float | None], label: str) -> None:
    known = [value for value in values if value]
    widths = [value or 0.0 for value in values]
    colours = [_OUR_COLOUR if name.split(",")[0] == OURS else _THEIR_COLOUR for name in names]
    bars = axes.barh(names, widths, color=colours)
    axes.bar_label(bars, [number_text(value) for value in values], padding=3, fontsize=7)
    if known and max(known) > _WIDE_RANGE * min(known):
        axes.set_xscale("log")
        label += " (logarithmic)"
    axes.margins(x=0.2)
    axes.set_xlabel(label, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _plot_goals(reached: list[tuple[Result, Goal]]) -> Figure:
    """How much of each goal is reached: 1 is the goal, and a tick shows its floor."""
    height = _HEAD_HEIGHT + _BAR_HEIGHT * 1.2 * len(reached)
    figure = Figure(figsize=(_WIDTH * 1.2, height), layout="constrained")
    axes = figure.subplots()
    for at, (result, goal) in enumerate(reached):
        ratio = result.reached(goal)
        assert ratio is not None
        colour = _COLOURS[result.verdict(goal)]
        part, floor = _part(ratio, goal), _part(goal.floor, goal)
        axes.plot([1, part], [at, at], color=colour, linewidth=1)
        axes.plot(part, at, "o", color=colour, markersize=6)
        axes.plot(floor, at, "|", color="#444444", markersize=9)
    axes.axvline(1, color="#444444", linewidth=0.8)
    axes.set_xscale("log")
    labels = [f"{result.case.title}\n{goal_text(result, goal)}" for result, goal in reached]
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(reached)), labels, fontsize=6)
    axes.set_xlabel("what is reached of the goal (1); ticks are floors; logarithmic", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.invert_yaxis()
    return figure


def _part(ratio: float, goal: Goal) -> float:
    return goal.goal / ratio if goal.at_most else ratio / goal.goal
