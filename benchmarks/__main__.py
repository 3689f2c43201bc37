"""Every case and its peers in turn, medians, ratios: ``python -m benchmarks``.

Absolute numbers mean little on a shared machine; a ratio taken in one run means more, and CPU time
per operation is steadier than throughput. The exit code is 1 if a peer failed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import _durations, _machine
from benchmarks._report import json_of, text_of
from benchmarks._suite import run_case

if TYPE_CHECKING:
    from benchmarks._suite import Case, Result

MODULES: Final = (
    "ping",
    "fairness",
    "connections",
    "seed_job",
    "tiny_tasks",
    "latency",
    "long_tasks",
    "payloads",
    "queueing",
    "starting",
)
"""Those of this package that have cases, in the order in which they run."""
ROUNDS: Final = 5
QUICK: Final = 0.2
"""Seconds of a measurement whose figures mean little."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, help=f"medians are of so many [{ROUNDS}]")
    parser.add_argument("--only", metavar="REGEX", default="", help="cases whose name has a match")
    parser.add_argument("--seconds", type=float, help=f"of a measurement [{_durations.SECONDS}]")
    parser.add_argument("--quick", action="store_true", help="one short round, to see if it works")
    parser.add_argument("--list", action="store_true", help="show the names of the cases, and exit")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write text, JSON and plots there")
    options = parser.parse_args()
    for name in ("rounds", "seconds"):
        number = getattr(options, name)
        if number is not None and not number > 0:
            parser.error(f"--{name} must be > 0: {number}")
    try:
        re.compile(options.only)
    except re.error as exc:
        parser.error(f"--only {options.only!r} is no regular expression: {exc}")
    chosen = [case for case in all_cases() if re.search(options.only, case.name)]
    if not chosen:
        parser.error(f"no case has a name that matches {options.only!r}")
    if options.list:
        for case in chosen:
            print(f"{case.name:24} {case.title}")
        return 0
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    _durations.SECONDS = options.seconds or (QUICK if options.quick else _durations.SECONDS)
    machine = _machine.describe()
    print(_machine.as_text(machine))
    results = []
    for case in chosen:
        result = run_case(case, rounds, tell)
        tell("")
        print(f"\n{text_of(result)}", flush=True)
        results.append(result)
        if options.out is not None:
            # Again after each case, so that a run that is cut short leaves what it has.
            write(options.out, results, machine)
    return 1 if any(result.failures for result in results) else 0


def all_cases() -> list[Case]:
    """In the order in which they run."""
    return [case for name in MODULES for case in import_module(f"benchmarks.{name}").CASES]


def tell(line: str) -> None:
    """Show what is going on, on one line that is written over and over."""
    width = shutil.get_terminal_size().columns - 1
    print(f"\r{line[:width]:{width}}\r", end="", file=sys.stderr, flush=True)


def write(directory: Path, results: list[Result], machine: dict[str, object]) -> None:
    """All that was found until now, as ``results.txt``, ``results.json`` and plots."""
    directory.mkdir(parents=True, exist_ok=True)
    tables = [_machine.as_text(machine), *map(text_of, results)]
    (directory / "results.txt").write_text("\n\n".join(tables) + "\n")
    numbers = json.dumps(json_of(results, machine), indent=1, ensure_ascii=False)
    (directory / "results.json").write_text(numbers + "\n")
    if find_spec("matplotlib") is None:
        print("no plots: there is no module named 'matplotlib'", file=sys.stderr)
    else:
        from benchmarks._plots import write_plots  # noqa: PLC0415  # it need not be there

        write_plots(results, _machine.as_text(machine), directory)


if __name__ == "__main__":
    # Whatever ends this program, the servers that it has started are to end with it.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
