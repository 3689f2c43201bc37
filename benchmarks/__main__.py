"""``python -m benchmarks [--rounds N]``: every case and its peers in turn, medians, ratios.

Absolute numbers mean little on a shared machine; a ratio taken in one run means more.
"""

from __future__ import annotations

import argparse
import statistics
from typing import TYPE_CHECKING

from benchmarks import ping

if TYPE_CHECKING:
    from collections.abc import Callable

Case = dict[str, "Callable[[], float]"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--rounds", type=int, default=5, help="medians are of so many [5]")
    rounds = parser.parse_args().rounds
    for title, unit, case in ping.CASES:
        print(f"\n{title} ({unit}, median of {rounds})")
        report(case, rounds)


def report(case: Case, rounds: int) -> None:
    """Run all in turn, round by round, and print each with its ratio to the first."""
    figures: dict[str, list[float]] = {name: [] for name in case}
    for number in range(rounds):
        for name, measure in case.items():
            print(f"  round {number + 1} of {rounds}: {name}".ljust(60), end="\r", flush=True)
            figures[name].append(measure())
    medians = {name: statistics.median(values) for name, values in figures.items()}
    ours = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"  {name:32} {median:12,.0f}   ours is {ours / median:.2f} x".ljust(60))


if __name__ == "__main__":
    main()
