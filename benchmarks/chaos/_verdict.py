"""What the log says: what was lost, what happened twice, what is not as it should be.

A task of ``run_task`` whose caller lost patience is heard of by nobody, so what the log says of how
tasks ended may differ from the server's ledger by as many at the most.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_KINDS: Final = {
    "completed": ("completed", "unreadable"),  # results are read by those who ask for them
    "failed": ("TaskFailed",),
    "timed_out": ("TaskTimeout",),
    "cancelled": ("TaskCancelled",),
    "crashed": ("TaskWorkerCrashed",),
}
LEDGER: Final = ("posted", "queued", "running", *_KINDS, "abandoned", "retried")
"""What the server counts."""


class Story:
    """All that the log says, gathered."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.retries: dict[str, int] = {}
        # By the server, which says so to the poster.
        self.accepted: set[str] = set()
        self.refused: set[str] = set()
        self.left: set[str] = set()
        # When, and how.
        self.ends: dict[str, list[tuple[float, str]]] = {}
        # When, and which attempt.
        self.runs: dict[str, list[tuple[float, int]]] = {}
        self.wrong: list[str] = []
        self.ledger: dict[str, Any] = {}
        self.progress = 0
        for line in lines:
            try:
                self._take(*json.loads(line))
            except (ValueError, TypeError):
                self.wrong.append(f"a line of the log: {line!r}")

    def _take(self, what: str, key: str, at: float, *facts: Any) -> None:
        match what, facts:
            case (("accepted" | "posted"), (retries,)):
                self.accepted.add(key)
                self.retries[key] = retries
            case "refused", _:
                self.refused.add(key)
            case "run", (attempt, retries):
                self.runs.setdefault(key, []).append((at, attempt))
                self.retries[key] = retries
            case "finished", (kind, *_):
                self.ends.setdefault(key, []).append((at, kind))
            case "returned", (kind, retries):
                self.accepted.add(key)
                self.retries[key] = retries
                self.ends.setdefault(key, []).append((at, kind))
            case "left", _:
                self.left.add(key)
            case "progress", _:
                self.progress += 1
            case "wrong", (words,):
                self.wrong.append(f"{key}: {words}")
            case "ledger", (numbers,):
                self.ledger = numbers
            case _:
                raise ValueError(what)

    @property
    def kinds(self) -> Counter[str]:
        """How tasks have ended, by the names of the ledger."""
        heard = Counter(kind for ends in self.ends.values() for _, kind in ends)
        return Counter({name: sum(heard[kind] for kind in kinds) for name, kinds in _KINDS.items()})

    def losses(self) -> list[str]:
        """Tasks that were accepted, or have run, and that nobody has heard the end of."""
        known = self.accepted | set(self.runs)
        return sorted(known - set(self.ends) - self.left)

    def duplicates(self) -> list[str]:
        """Tasks that have ended twice, or run more often than they may."""
        found = [f"{key} ended {ends}" for key, ends in self.ends.items() if len(ends) > 1]
        found += [f"{key} ended, and was left" for key in self.left if key in self.ends]
        for key, runs in self.runs.items():
            attempts = [attempt for _, attempt in runs]
            if len(set(attempts)) < len(attempts) or max(attempts) > 1 + self.retries[key]:
                found.append(f"{key} ran as attempts {attempts}, retries {self.retries[key]}")
        return found

    def others(self) -> list[str]:
        """What else is wrong."""
        found = list(self.wrong)
        for key, runs in self.runs.items():
            if key in self.refused:
                found.append(f"{key} was refused, and ran")
            if key in self.ends and max(runs)[0] > self.ends[key][0][0]:
                found.append(f"{key} ran after its end")
        found += [f"{key} was refused, and ended" for key in self.refused & set(self.ends)]
        found += [
            f"{key} completed without a run"
            for key, ends in self.ends.items()
            if ends[0][1] == "completed" and key not in self.runs
        ]
        return found + self._imbalances()

    def _imbalances(self) -> list[str]:
        """What the ledger says otherwise."""
        if not self.ledger:
            return ["the server has written no ledger"]
        found = [] if self.ledger["is_balanced"] else [f"the ledger: {self.ledger}"]
        more = {name: self.ledger[name] - heard for name, heard in self.kinds.items()}
        if min(more.values()) < 0 or sum(more.values()) > len(self.left):
            found.append(f"the ledger minus what was heard, with {len(self.left)} left: {more}")
        if self.ledger["posted"] != sum(self.ledger[name] for name in more):
            found.append(f"the ledger has open tasks: {self.ledger}")
        return found
