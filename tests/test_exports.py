"""The public names, where they live, and what importing them costs."""

from __future__ import annotations

import ast
import inspect
import pickle
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from serving import ROOT

import trioserver


def loaded_by(statement: str) -> set[str]:
    """The top-level modules and ours that are loaded after ``statement`` in a fresh process."""
    code = f"import sys; {statement}; print(*sys.modules, sep='\\n')"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_the_package_alone_loads_nothing() -> None:
    """Names are imported when they are asked for."""
    loaded = loaded_by("import trioserver")

    assert not loaded & {"trio", "attrs", "attr", "trio_parallel"}
    assert {name for name in loaded if name.startswith("trioserver")} == {"trioserver"}


@pytest.mark.parametrize(
    "statement",
    [
        "from trioserver import Settings, EofFraming, LengthFraming",
        "import trioserver._app",
        "from trioserver._cli import main; main(['--version'])",
    ],
)
def test_apps_and_command_lines_load_no_trio(statement: str) -> None:
    """A task worker whose app needs settings and a framing, and --check, start without Trio."""
    assert "trio" not in loaded_by(statement)


def test_task_workers_load_neither_trio_nor_attrs() -> None:
    """What runs inside them, the console script's main module included."""
    loaded = loaded_by("import trioserver._tasks._inside, trioserver.__main__")

    assert not loaded & {"trio", "attrs", "attr"}


@pytest.mark.parametrize("name", trioserver.__all__)
def test_every_name_is_there(name: str) -> None:
    """It has a docstring, and pickles as what it is."""
    value = getattr(trioserver, name)

    assert inspect.getdoc(value)
    assert pickle.loads(pickle.dumps(value)) is value


def test_type_checkers_see_the_same_names() -> None:
    """The imports that only they read are those of the table."""
    tree = ast.parse(Path(trioserver.__file__).read_text(encoding="utf-8"))
    imported = {
        (str(node.module), alias.name, alias.asname)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("trioserver.")
        for alias in node.names
    }

    assert imported == {
        (f"trioserver.{home}", name, name)
        for home, names in trioserver._HOMES.items()
        for name in names
    }


def test_names_are_listed() -> None:
    """For completion."""
    assert set(trioserver.__all__) <= set(dir(trioserver))


def test_other_names_are_not_there() -> None:
    """With the words of any module."""
    with pytest.raises(AttributeError, match=r"^module 'trioserver' has no attribute 'serv'$"):
        trioserver.serv  # type: ignore[attr-defined]  # noqa: B018  # that is the test


def test_the_version_is_said_once() -> None:
    """The package and the project agree."""
    project = tomllib.loads(Path(ROOT, "pyproject.toml").read_text(encoding="utf-8"))

    assert trioserver.__version__ == project["project"]["version"]
