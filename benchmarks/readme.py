"""What a run found, for people who read about it: ``python -m benchmarks.readme RESULTS.json``.

Prints Markdown: where and when, a row for each goal, and the plot that lies beside the results.
With ``--into FILE`` it goes there, in place of what is between the two marks, so that no figure is
ever typed by hand.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any, Final

from benchmarks._report import number_text

BEGIN: Final = "<!-- figures -->"
END: Final = "<!-- end of figures -->"
PLOT: Final = "goals.svg"
_HEAD: Final = ("case", "in", "ours", "theirs", "reached", "goal", "floor", "verdict")


def markdown_of(results: dict[str, Any], plot: str | None = None) -> str:
    """The whole of it.

    Args:
      results: What `_report.json_of` made.
      plot: Where a plot of all goals is, for the reader.
    """
    table = [_HEAD, ("---",) * len(_HEAD)]
    table += [_row(case, goal) for case in results["cases"] for goal in case["goals"]]
    lines = [_where(results["machine"]), "", *(f"| {' | '.join(row)} |" for row in table)]
    if plot is not None:
        lines += ["", f"![What is reached of each goal]({plot})"]
    return "\n".join(lines)


def _where(machine: dict[str, Any]) -> str:
    names = ("trio", "trio-parallel", "uvloop")
    versions = [
        f"{name} {machine['packages'][name]}" for name in names if name in machine["packages"]
    ]
    system = f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}"
    return f"{machine['date'][:10]}, {system}, {', '.join([machine['python'], *versions])}."


def _row(case: dict[str, Any], goal: dict[str, Any]) -> tuple[str, ...]:
    rows = {row["peer"]: row for row in case["rows"]}
    unit = "CPU µs each" if goal["by"] == "cpu" else case["unit"]
    key = "cpu_us" if goal["by"] == "cpu" else "value"

    def number(peer: str) -> str:
        found = rows[peer][key] if peer in rows else None
        return "not measured" if found is None else number_text(found)

    ours = number(goal["ours"])
    if goal["ours"] != case["ours"]:
        ours += f" ({goal['ours'].removeprefix(case['ours']).lstrip(', ')})"
    mark = "" if goal["peer"] is None else " x"
    theirs = "" if goal["peer"] is None else f"{goal['peer']}: {number(goal['peer'])}"
    bound = "at most " if goal["at_most"] else ""
    wanted = f"{bound}{number_text(goal['goal'])}{mark}"
    wanted += "".join(f", or {than} x {peer}" for peer, than in goal["instead"].items())
    reached = "" if goal["reached"] is None else f"{number_text(goal['reached'])}{mark}"
    floor = f"{bound}{number_text(goal['floor'])}{mark}"
    return case["title"], unit, ours, theirs, reached, wanted, floor, goal["verdict"]


def put_into(text: str, markdown: str) -> str:
    """``text`` with ``markdown`` between its two marks.

    Raises:
      ValueError: if it does not have both, in their order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"there is no {BEGIN} that is followed by {END}")
    return f"{before}{begin}\n{markdown}\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("results", type=Path, metavar="RESULTS.json")
    parser.add_argument("--into", type=Path, metavar="FILE", help="rather than to standard output")
    options = parser.parse_args()
    plot = options.results.with_name(PLOT)
    shown = None
    if plot.exists():
        reader = options.into.parent if options.into else Path()
        shown = Path(os.path.relpath(plot, reader)).as_posix()
    markdown = markdown_of(json.loads(options.results.read_text()), shown)
    if options.into is None:
        print(markdown)
        return
    try:
        text = put_into(options.into.read_text(), markdown)
    except ValueError as exc:
        parser.error(f"{options.into}: {exc}")
    options.into.write_text(text)


if __name__ == "__main__":
    main()
