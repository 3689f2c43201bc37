"""What CI runs and what developers run: ``nox`` for all of it, ``nox -s lint`` for one session."""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests", "coverage", "examples", "guard"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)


def install(session: nox.Session, *groups: str) -> None:
    """Install the project as it stands, with the dependency groups that a session needs."""
    session.install("-e", ".", *nox.project.dependency_groups(PYPROJECT, *groups))


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and the traps of structured concurrency."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("flake8", "trioserver", "tests", "examples", "benchmarks")


@nox.session
def types(session: nox.Session) -> None:
    """Types of package, tests and examples."""
    install(session, "typing")
    session.run("mypy")


@nox.session(python=PYTHONS)
@nox.parametrize("cloudpickle", [False, True], ids=["plain", "cloudpickle"])
def tests(session: nox.Session, cloudpickle: bool) -> None:  # noqa: FBT001  # nox gives it by name
    """All tests; trio-parallel pickles differently where cloudpickle is installed."""
    install(session, "tests")
    if cloudpickle:
        session.install("cloudpickle")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """How much of the package the tests run, task workers included."""
    install(session, "tests", "coverage")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session
def examples(session: nox.Session) -> None:
    """The examples, each served and talked to."""
    install(session, "tests")
    session.run("python", "-m", "pytest", "tests/test_examples.py", *session.posargs)


@nox.session
def guard(session: nox.Session) -> None:
    """Whether any fast path is lost: ratios to peers in the same run, half a minute."""
    install(session)
    session.run("python", "-m", "benchmarks.guard")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Speed, beside peers in the same run, into a directory if ``--out`` names one."""
    install(session, "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(default=False)
def chaos(session: nox.Session) -> None:
    """Everything goes wrong at once, and nothing gets lost: a minute each for three seeds."""
    install(session)
    for seed in session.posargs or ["1", "2", "3"]:
        session.run("python", "-m", "benchmarks.chaos", "--seed", seed)


@nox.session(default=False)
def overload(session: nox.Session) -> None:
    """Ten times what the workers can take, half a minute each for small and large payloads."""
    install(session)
    session.run("python", "-m", "benchmarks.overload", *session.posargs)


@nox.session(default=False)
def upheaval(session: nox.Session) -> None:
    """Processes are killed under load, and then reloaded: a minute each."""
    install(session)
    for mode in ("kill", "reload"):
        session.run("python", "-m", "benchmarks.upheaval", "--mode", mode, *session.posargs)
