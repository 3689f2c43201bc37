"""The commands that show what a server survives, each for a moment; see ``benchmarks``."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from serving import PATIENCE, ROOT


def run_module(*arguments: str) -> tuple[int, str]:
    """``python -m ARGUMENTS``: exit code, and all that it has printed."""
    process = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    return process.returncode, f"{process.stdout}\n{process.stderr}"


def numbers(printed: str, name: str) -> list[int]:
    """The values of the rows of that name."""
    return [int(value) for value in re.findall(rf"^  {name} +(\d+)$", printed, re.MULTILINE)]


def test_chaos() -> None:
    """Under clients that come and go and killers, nothing is lost, doubled, or left behind."""
    exit_code, printed = run_module("benchmarks.chaos", "--seconds", "2", "--seed", "7")

    assert exit_code == 0, printed
    for name in ("duplicates", "losses", "other wrongs", "processes left"):
        assert numbers(printed, name) == [0], printed
    (accepted,) = numbers(printed, "accepted")
    assert accepted > 0, printed


def test_overload() -> None:
    """With ten times the load that workers can take, memory is bounded and nothing is lost."""
    exit_code, printed = run_module("benchmarks.overload", "--seconds", "0.5")

    assert exit_code == 0, printed
    assert numbers(printed, "lost") == [0, 0], printed
    assert numbers(printed, "processes left") == [0, 0], printed
    accepted, completed = numbers(printed, "accepted"), numbers(printed, "completed")
    assert accepted == completed, printed
    assert all(count > 200 for count in accepted), printed  # the first of each client, and more


@pytest.mark.parametrize("mode", ["kill", "reload"])
def test_upheaval(mode: str) -> None:
    """While processes are killed or reloaded nobody is refused, and nothing is lost or doubled."""
    exit_code, printed = run_module("benchmarks.upheaval", "--mode", mode, "--seconds", "3")

    assert exit_code == 0, printed
    for name in ("refused connections", "losses", "duplicates", "other wrongs", "processes left"):
        assert numbers(printed, name) == [0], printed
    deeds = ("event workers killed", "task workers killed", "reloads done")
    for names in (("answers",), ("runs",), deeds):
        assert sum(sum(numbers(printed, name)) for name in names) > 0, printed
