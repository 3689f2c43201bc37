"""How simulations get their seeds, and how a failing one is named.

``--seeds`` is how many each simulation gets, and ``--first-seed`` is the first of them. They come
in batches, one a test item. A failure carries the command that runs its seed alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_SEEDS: Final = 2000
_BATCHES: Final = 16


class Seeds:
    """One batch of seeds for one simulation.

    Args:
      seeds: Which.
      test: The simulation, as pytest's command line has it.
    """

    def __init__(self, seeds: range, test: str) -> None:
        self._seeds = seeds
        self._test = test

    def each(self, simulate: Callable[[int], object]) -> None:
        """Call ``simulate`` with each seed; what it raises names the seed and how to replay it."""
        for seed in self._seeds:
            try:
                simulate(seed)
            except BaseException as exc:
                command = f"python -m pytest '{self._test}' --seeds 1 --first-seed {seed}"
                exc.add_note(f"seed {seed}; alone: {command}")
                raise


def add_options(parser: pytest.Parser) -> None:
    """For ``pytest_addoption``."""
    group = parser.getgroup("simulations")
    group.addoption(
        "--seeds",
        type=int,
        default=DEFAULT_SEEDS,
        metavar="N",
        help=f"seeds of each simulation (default: {DEFAULT_SEEDS})",
    )
    group.addoption(
        "--first-seed", type=int, default=0, metavar="N", help="the first of them (default: 0)"
    )


def batches(config: pytest.Config) -> list[range]:
    """The seeds that were asked for, in at most `_BATCHES` parts of about one size."""
    count = config.getoption("seeds")
    first = config.getoption("first_seed")
    size = max(1, -(-count // _BATCHES))
    return [range(at, min(at + size, first + count)) for at in range(first, first + count, size)]
