"""What the logs say: which tasks were lost, doubled, or cut off with their connections."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping
    from pathlib import Path

    from benchmarks.upheaval._clients import Cut

_CANCELLED: Final = ("TaskCancelled", "left")
"""How tasks may end whose client has left: as their connection's, or as their caller's."""
_ROUNDING: Final = 1.0
"""Seconds between a kill and its effect that a slow machine may put there."""


class Story:
    """All that the logs say, gathered.

    Args:
      logs: The directory with a log of each process.
      killed: Event workers that were killed, and when.
      left: Tokens of requests whose clients did not wait.
      is_peaceful: Whether nothing was killed, so that every task must run and complete.
    """

    def __init__(
        self, logs: Path, killed: Mapping[int, float], left: Container[str], *, is_peaceful: bool
    ) -> None:
        self._killed = killed
        self._left = left
        self._is_peaceful = is_peaceful
        # By token: who hears of it, and how often it may be tried again.
        self.posted: dict[str, tuple[int, int]] = {}
        self.got: set[str] = set()
        self.ends: dict[str, list[str]] = {}
        self.runs: dict[str, list[int]] = {}
        # Ports of clients: who has accepted them, and when.
        self._connected: dict[int, list[tuple[float, int]]] = {}
        # Numbers of event workers: when they began, and their code.
        self._markers: dict[int, list[tuple[float, int]]] = {}
        self._task_ids: dict[int, set[str]] = {}
        self._stream_ids: Counter[int] = Counter()
        self._who: dict[str, set[int]] = {}
        self.wrong: list[str] = []
        for log in logs.iterdir():
            with log.open() as lines:
                self._read(lines)

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            try:
                self._take(*json.loads(line))
            except (ValueError, TypeError):
                self.wrong.append(f"a line of a log: {line!r}")

    def _take(self, what: str, who: int, *facts: Any) -> None:
        match what, facts:
            case "started", (number, marker, at):
                self._markers.setdefault(number, []).append((at, marker))
            case "connected", (port, stream_id, at):
                self._connected.setdefault(port, []).append((at, who))
                self._stream_ids[stream_id] += 1
            case "got", (token,):
                self.got.add(token)
            case (("accepted" | "posted"), (token, retries, task_id)):
                self.posted[token] = (who, retries)
                self._task_ids.setdefault(task_id, set()).add(token)
            case "asked", (token, retries):
                self.posted[token] = (who, retries)
            case "run", (token, attempt, task_id):
                self.runs.setdefault(token, []).append(attempt)
                self._task_ids.setdefault(task_id, set()).add(token)
                self._who.setdefault(token, set()).add(who)
            case (("ended" | "returned"), (token, kind)):
                self.ends.setdefault(token, []).append(kind)
                self._who.setdefault(token, set()).add(who)
            case _:
                raise ValueError(what)

    # Tasks

    @property
    def kinds(self) -> Counter[str]:
        """How tasks have ended."""
        return Counter(kind for kinds in self.ends.values() for kind in kinds)

    def losses(self) -> list[str]:
        """Tasks of surviving event workers of whose end nobody has heard."""
        return sorted(
            token
            for token, (who, _) in self.posted.items()
            if token not in self.ends and who not in self._killed
        )

    def unheard(self) -> int:
        """Tasks of killed event workers of whose end nobody has heard: that is as it should be."""
        return len(self.posted.keys() - self.ends.keys()) - len(self.losses())

    def duplicates(self) -> list[str]:
        """Tasks that have ended twice, or run more often than they may; ids that two things had."""
        found = [f"{token} ended as {ends}" for token, ends in self.ends.items() if len(ends) > 1]
        for token, attempts in self.runs.items():
            _, retries = self.posted.get(token, (0, 2))
            most = 1 if self._is_peaceful else 1 + retries
            if len(set(attempts)) < len(attempts) or max(attempts) > most:
                found.append(f"{token} ran as attempts {attempts}, retries {retries}")
        found += [
            f"task id {i} of {tokens}" for i, tokens in self._task_ids.items() if len(tokens) > 1
        ]
        found += [f"connection id {i}, {n} times" for i, n in self._stream_ids.items() if n > 1]
        return found

    def others(self) -> list[str]:
        """What else is wrong."""
        found = list(self.wrong)
        for token, kinds in self.ends.items():
            if "completed" in kinds and token not in self.runs:
                found.append(f"{token} completed without a run")
            allowed = {"completed", *(_CANCELLED if token in self._left else ())}
            if self._is_peaceful and set(kinds) - allowed:
                found.append(f"{token} ended as {kinds}")
        found += [
            f"{token} was not posted, but has run or ended"
            for token, who in self._who.items()
            if token not in self.posted and not who & self._killed.keys() and self._is_noted(token)
        ]
        for number, markers in self._markers.items():
            in_order = [marker for _, marker in sorted(markers)]
            if in_order != sorted(in_order):
                found.append(f"event worker {number} ran code {in_order}")
        return found

    def _is_noted(self, token: str) -> bool:
        """Whether whoever posted it has lived to write that down.

        A task that posts may be killed: with its worker, or because its client has left.
        """
        parent, _, is_child = token.partition("/")
        return not is_child or (self._is_peaceful and parent not in self._left)

    # Connections

    def excused(self, cut: Cut) -> bool:
        """Whether it was to a process that was killed."""
        for at, who in self._connected.get(cut.port, ()):
            if cut.began <= at <= cut.ended:
                return who in self._killed
        # Accepted, and killed before it could say so.
        return any(cut.began - _ROUNDING <= at <= cut.ended for at in self._killed.values())

    def unread(self, cut: Cut) -> bool:
        """Whether nothing of what was sent and has no answer was handled."""
        return not self.got & set(cut.unanswered)
