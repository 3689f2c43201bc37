"""The harness of the benchmarks, and that the peers do the same work as ours."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks import _apart, _durations, _load, _meter, _pools, guard, latency
from benchmarks._apart import MeasurementError, measure_apart
from benchmarks._cores import cpu_seconds
from benchmarks._needs import PeerMissingError, missing, need_module, need_program
from benchmarks._report import json_of, text_of
from benchmarks._servers import (
    ASYNCIO_PROTOCOL,
    ASYNCIO_STREAMS,
    PLAIN_TRIO,
    Server,
    check,
    serving,
)
from benchmarks._suite import OURS, Case, Figure, Goal, Result, run_case
from benchmarks.peers._lines import MAX_LENGTH, Lines, LineTooLongError
from benchmarks.readme import BEGIN, END, markdown_of, put_into

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _sigterm_as_it_was() -> Iterator[None]:
    """`Served` takes it, as programs of their own may."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def _missing() -> Figure:
    raise PeerMissingError("no module named 'theirs'")


def _broken() -> Figure:
    raise OSError("no luck")


def _run(*goals: Goal, is_lower_better: bool = False) -> Result:
    ours = iter((1.0, 30.0, 2.0))
    peers = {
        OURS: lambda: Figure(next(ours), cpu=5.0),
        "theirs": lambda: Figure(4.0, cpu=2.5),
        "absent": _missing,
        "broken": _broken,
    }
    case = Case("name", "title", "things/s", peers, goals, is_lower_better)
    return run_case(case, 3, lambda _: None)


def test_a_row_has_the_median_of_its_rounds() -> None:
    row = _run().row(OURS)
    assert row is not None
    assert (row.value, row.cpu, len(row.figures)) == (2.0, 5.0, 3)


def test_a_missing_peer_is_left_out_and_named() -> None:
    result = _run()
    assert result.missing == {"absent": "no module named 'theirs'"}
    assert result.row("absent") is None
    assert "  without absent: no module named 'theirs'" in text_of(result).splitlines()


def test_a_failing_peer_costs_only_its_own_row() -> None:
    result = _run()
    assert [row.peer for row in result.failures] == ["broken"]
    assert "  broken FAILED: OSError: no luck" in text_of(result).splitlines()
    (case,) = json_of([result], {})["cases"]
    assert [row["failure"] for row in case["rows"]] == [None, None, "OSError: no luck"]


@pytest.mark.parametrize(
    ("goal", "reached", "verdict"),
    [
        (Goal(0.5, 0.4, "theirs"), 0.5, "goal met"),
        (Goal(0.6, 0.4, "theirs"), 0.5, "floor met"),
        (Goal(0.7, 0.6, "theirs"), 0.5, "below the floor"),
        (Goal(0.4, 0.6, "theirs", at_most=True), 0.5, "floor met"),
        (Goal(0.5, 0.4, "theirs", by="cpu"), 0.5, "goal met"),
        (Goal(3.0, 4.0, at_most=True), 2.0, "goal met"),
        (Goal(1.0, 1.0, "absent"), None, "not measured"),
        (Goal(1.0, 1.0, "broken"), None, "not measured"),
    ],
)
def test_goals_are_judged(goal: Goal, reached: float | None, verdict: str) -> None:
    result = _run(goal)
    assert result.reached(goal) == reached
    assert goal.verdict(reached) == verdict
    assert text_of(result).endswith(verdict)


def test_what_is_known_to_be_missing_is_not_measured() -> None:
    reasons = missing(
        {
            "theirs": lambda: need_module("no_such_module"),
            "another": lambda: need_program("no-such-program"),
            "here": lambda: need_module("trio"),
        }
    )
    assert reasons == {
        "theirs": "no module named 'no_such_module'",
        "another": "no program 'no-such-program' on PATH",
    }
    case = Case("name", "title", "things/s", {"theirs": _broken}, missing=reasons)
    result = run_case(case, 1, lambda _: None)
    assert (result.rows, result.missing) == ((), {"theirs": "no module named 'no_such_module'"})


def _of(*peers: tuple[str, list[Figure]], goal: Goal) -> Result:
    figures = {name: iter(found) for name, found in peers}
    rounds = max(len(found) for _, found in peers)
    case = Case(
        "name",
        "title",
        "p99 ms",
        {name: lambda name=name: next(figures[name]) for name in figures},  # type: ignore[misc]
        (goal,),
    )
    return run_case(case, rounds, lambda _: None)


def test_other_load_on_the_machine_is_no_success() -> None:
    goal = Goal(1.5, 3.0, "calm", at_most=True)
    disturbed, sound = Figure(9.0, is_disturbed=True), Figure(1.0)
    result = _of((OURS, [Figure(4.0)] * 3), ("calm", [disturbed] * 3), goal=goal)
    assert result.reached(goal) == pytest.approx(4 / 9)
    assert result.verdict(goal) == "disturbed"
    assert "  calm: other load disturbed 3 of 3 rounds" in text_of(result).splitlines()
    result = _of((OURS, [Figure(4.0)] * 3), ("calm", [disturbed, sound, disturbed]), goal=goal)
    assert result.reached(goal) == 4.0
    assert result.verdict(goal) == "below the floor"


def test_other_load_does_not_change_cpu_time() -> None:
    goal = Goal(2.0, 1.0, "theirs", by="cpu")
    theirs = [Figure(1.0, 6.0, is_disturbed=True)]
    assert (
        _of((OURS, [Figure(9.0, 2.0)]), ("theirs", theirs), goal=goal).verdict(goal) == "goal met"
    )


def test_a_meter_notices_what_else_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_apart._MARK, uuid.uuid4().hex)  # only processes that start with it have it
    burning = subprocess.Popen([sys.executable, "-c", "while True: pass"], env={})
    try:
        before, used = _meter._cpu_elsewhere(), cpu_seconds([burning.pid])
        while cpu_seconds([burning.pid]) < used + 0.2:
            time.sleep(0.01)
        assert _meter._cpu_elsewhere() - before > 0.15  # it is counted in ticks of 0.01
    finally:
        burning.kill()
        burning.wait()


def test_one_peer_may_stand_in_for_another() -> None:
    goal = Goal(4.0, 3.0, "theirs", instead={"absent": 1.0, "other": 2.0})
    ours, theirs = (OURS, [Figure(6.0)]), ("theirs", [Figure(2.0)])
    assert _of(ours, theirs, goal=goal).verdict(goal) == "floor met"
    assert _of(ours, theirs, ("other", [Figure(4.0)]), goal=goal).verdict(goal) == "floor met"
    result = _of(ours, theirs, ("other", [Figure(3.0)]), goal=goal)
    assert result.verdict(goal) == "goal met"
    assert "goal 4.00 x or 1.00 x absent or 2.00 x other, floor 3.00 x" in text_of(result)


def test_a_goal_may_compare_another_row_of_ours() -> None:
    goal = Goal(2.0, 1.0, "theirs", ours="ours, too")
    rows = (OURS, [Figure(1.0)]), ("ours, too", [Figure(6.0)]), ("theirs", [Figure(2.0)])
    result = _of(*rows, goal=goal)
    assert (result.reached(goal), result.verdict(goal)) == (3.0, "goal met")
    assert text_of(result).splitlines()[-1].startswith("  ours, too: p99 ms against theirs: 3.00 x")


MACHINE = {
    "date": "2030-01-02T03:04:05+00:00",
    "cpu": "a processor",
    "cores": 2,
    "kernel": "Linux 7",
    "python": "CPython 3.11.7",
    "packages": {"trioserver": "1", "trio": "2"},
}


def test_the_figures_of_the_readme_come_from_the_results() -> None:
    result = _run(Goal(0.4, 0.3, "theirs"), Goal(3.0, 4.0, at_most=True), Goal(1, 1, "absent"))
    results = json.loads(json.dumps(json_of([result], MACHINE)))
    text = markdown_of(results, "results/goals.svg")
    assert text.splitlines() == [
        "2030-01-02, a processor, 2 cores, Linux 7, CPython 3.11.7, trio 2.",
        "",
        "| case | in | ours | theirs | reached | goal | floor | verdict |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| title | things/s | 2.00 | theirs: 4.00 | 0.500 x | 0.400 x | 0.300 x | goal met |",
        "| title | things/s | 2.00 |  | 2.00 | at most 3.00 | at most 4.00 | goal met |",
        "| title | things/s | 2.00 | absent: not measured |  | 1.00 x | 1.00 x | not measured |",
        "",
        "![What is reached of each goal](results/goals.svg)",
    ]
    assert put_into(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
    with pytest.raises(ValueError, match=r"^there is no <!-- figures --> that is followed by"):
        put_into(f"{END} {BEGIN}", "new")


def test_the_readme_has_a_place_for_figures() -> None:
    readme = Path(__file__).parent.parent / "README.md"
    assert "new" in put_into(readme.read_text(encoding="utf-8"), "new")


def _guarded(*ratios: float) -> Case:
    ours = iter([ratio for ratio in ratios for _ in range(guard.ROUNDS)])
    peers = {OURS: lambda: Figure(1.0, 1 / next(ours)), "theirs": lambda: Figure(1.0, 1.0)}
    return Case("fast", "a fast path", "things/s", peers, (Goal(3.0, 3.0, "theirs", by="cpu"),))


@pytest.mark.parametrize(
    ("ratios", "exit_code"), [([4.0], 0), ([2.0, 4.0], 0), ([2.0, 2.5], 1)], ids=str
)
def test_the_guard_gives_a_second_chance(
    ratios: list[float], exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guard.main([_guarded(*ratios)]) == exit_code
    printed = capsys.readouterr().out.splitlines()
    assert ("no longer as fast: a fast path" in printed) is bool(exit_code)


def test_nothing_is_left_of_a_measurement_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    token = uuid.uuid4().hex
    monkeypatch.setattr("secrets.token_hex", lambda _: token)
    monkeypatch.setattr(_durations, "SECONDS", 0.01)
    figure = measure_apart(latency.plain)  # whose workers would live on
    assert figure.value > 0
    assert _apart._marked(token) == []
    with pytest.raises(MeasurementError, match=r"no-such-pool"):
        measure_apart(_pools.rate_of_pool, "no-such-pool", 0, 1, 1)
    assert _apart._marked(token) == []


def test_the_lines_of_peers_have_a_maximum_length() -> None:
    lines = Lines()
    assert lines.feed(b"a\r\n\r\nb") == [b"a", b""]
    assert lines.feed(b"\r") == []
    assert lines.feed(b"\n") == [b"b"]
    assert lines.feed(b"x" * MAX_LENGTH + b"\r\n") == [b"x" * MAX_LENGTH]
    with pytest.raises(LineTooLongError):
        lines.feed(b"x" * (MAX_LENGTH + 1))


@pytest.mark.parametrize("name", [OURS, PLAIN_TRIO, ASYNCIO_STREAMS, ASYNCIO_PROTOCOL])
def test_peers_do_the_same_work(name: str) -> None:
    with serving(name) as server:  # which checks it, and once more on another connection
        check(Server(server.pid, server.port))


@pytest.mark.parametrize("program", ["redis-benchmark", None])
def test_load_comes_from_what_is_there(
    program: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = program and shutil.which(program)
    if program and path is None:
        pytest.skip(f"no program {program!r} on PATH")
    monkeypatch.setattr(_load, "_GENERATOR_PATH", path)
    with serving(PLAIN_TRIO) as server:
        assert _load.drive(server.port, 2, 4, 200) > 0
