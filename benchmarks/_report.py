"""What a run found, as text for people and as JSON for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from benchmarks._suite import OURS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks._suite import Goal, Result, Row

_NAME_WIDTH: Final = 34


def text_of(result: Result) -> str:
    """The table of one case, with its goals and with what is missing below."""
    case = result.case
    rounds = max((len(row.figures) for row in result.rows), default=0)
    lines = [f"{case.name}: {case.title} ({case.unit}, median of {rounds})"]
    columns = ["", case.unit, "ours is", "CPU µs", "ours is"]
    extra = list(dict.fromkeys(name for row in result.rows for name in row.more))
    table = [[*columns, *extra]]
    table += [
        [*_cells(result, row), *(number_text(row.more.get(name)) for name in extra)]
        for row in result.rows
        if row.figures
    ]
    # A column that nobody has anything for says nothing.
    used = [at for at in range(len(table[0])) if at < 2 or any(line[at] for line in table[1:])]
    lines += _aligned([[line[at] for at in used] for line in table])
    lines += [
        f"  {row.peer}: other load disturbed {len(disturbed)} of {len(row.figures)} rounds"
        for row in result.rows
        if (disturbed := [figure for figure in row.figures if figure.is_disturbed])
    ]
    lines += [f"  {row.peer} FAILED: {row.failure}" for row in result.failures]
    lines += [f"  without {peer}: {reason}" for peer, reason in result.missing.items()]
    lines += [f"  {goal_text(result, goal)}" for goal in case.goals]
    return "\n".join(lines)


def _cells(result: Result, row: Row) -> list[str]:
    value = result.ratio(row.peer, "value")
    if value and result.case.is_lower_better:
        value = 1 / value
    cpu = result.ratio(row.peer, "cpu")
    return [row.peer, number_text(row.value), _times(value), number_text(row.cpu), _times(cpu)]


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    widths[0] = max(widths[0], _NAME_WIDTH)
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]


def goal_text(result: Result, goal: Goal) -> str:
    """What was wanted of us, what was reached, and what that amounts to."""
    reached = result.reached(goal)
    what = "CPU time" if goal.by == "cpu" else result.case.unit
    if goal.ours != OURS:
        what = f"{goal.ours}: {what}"
    bound = "at most " if goal.at_most else ""
    if goal.peer is None:
        of, mark = what, ""
    else:
        of, mark = f"{what} against {goal.peer}", " x"
    numbers = "" if reached is None else f"{number_text(reached)}{mark}, "
    wanted = f"goal {bound}{number_text(goal.goal)}{mark}"
    wanted += "".join(
        f" or {number_text(than)}{mark} {peer}" for peer, than in goal.instead.items()
    )
    wanted += f", floor {number_text(goal.floor)}{mark}"
    return f"{of}: {numbers}{wanted}: {result.verdict(goal)}"


def number_text(number: float | None) -> str:
    """Three digits that matter, or all before the point."""
    if number is None:
        return ""
    digits = next((digits for digits in (0, 1, 2, 3) if abs(number) >= 10 ** (2 - digits)), 4)
    return f"{number:,.{digits}f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f} x"


def json_of(results: Iterable[Result], machine: dict[str, Any]) -> dict[str, Any]:
    """All figures of all rounds, and what follows from them."""
    return {"machine": machine, "cases": [_case_of(result) for result in results]}


def _case_of(result: Result) -> dict[str, Any]:
    case = result.case
    return {
        "name": case.name,
        "title": case.title,
        "unit": case.unit,
        "is_lower_better": case.is_lower_better,
        "ours": OURS,
        "rows": [_row_of(result, row) for row in result.rows],
        "missing": dict(result.missing),
        "goals": [_goal_of(result, goal) for goal in case.goals],
    }


def _row_of(result: Result, row: Row) -> dict[str, Any]:
    return {
        "peer": row.peer,
        "value": row.value,
        "cpu_us": row.cpu,
        "ours_to_value": result.ratio(row.peer, "value"),
        "cpu_to_ours": result.ratio(row.peer, "cpu"),
        "more": row.more,
        "failure": row.failure,
        "rounds": [attrs.asdict(figure) for figure in row.figures],
    }


def _goal_of(result: Result, goal: Goal) -> dict[str, Any]:
    reached = result.reached(goal)
    return {**attrs.asdict(goal), "reached": reached, "verdict": result.verdict(goal)}
