"""One measurement that gives the figures of several cases."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks._apart import measure_apart

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._suite import Figure


class Parts:
    """``measure(*args)`` apart; each of its figures goes to the case that asks for its name.

    It is measured anew only where a case wants more figures than there are, so that cases which
    are run one after the other, with as many rounds each, share what the first one has measured.
    """

    def __init__(self, measure: Callable[..., dict[str, Figure]], *args: Any) -> None:
        self._measure = partial(measure_apart, measure, *args)
        self._left: dict[str, deque[Figure]] = {}

    def part(self, name: str) -> Callable[[], Figure]:
        """What a case takes as a peer of its own."""
        return partial(self._take, name)

    def _take(self, name: str) -> Figure:
        if not self._left.get(name):
            for each, figure in self._measure().items():
                self._left.setdefault(each, deque()).append(figure)
        return self._left[name].popleft()


def one(measure: Callable[..., dict[str, Figure]], *args: Any) -> Callable[[], Figure]:
    """A peer whose measurement has but one figure."""
    return lambda: next(iter(measure_apart(measure, *args).values()))
