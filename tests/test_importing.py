"""From a name to the object, and back."""

from __future__ import annotations

import re
import sys
import types
from typing import TYPE_CHECKING

import pytest
from modules import directory_of_modules

from trioserver import AppError
from trioserver._importing import (
    UNGUARDED,
    instantiate,
    load_object,
    refuse_in_spawned_child,
    spec_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Outer:
    """At the top level of a module."""

    class Inner:
        """Reachable through it."""


BOUND = Outer()


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[Path]:
    """A current directory with two modules and a package."""
    (tmp_path / "shop.py").write_text("class App:\n    class Inner: pass\n")
    (tmp_path / "broken.py").write_text("import is_not_there\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "shop.py").write_text("NUMBER = 1\n")
    with directory_of_modules(tmp_path):
        yield tmp_path


def test_a_module_is_named_alone(here: Path) -> None:
    """The current directory counts, though it is not on the path."""
    assert str(here) not in sys.path
    module = load_object("shop")

    assert isinstance(module, types.ModuleType)
    assert module.__file__ == str(here / "shop.py")


def test_an_attribute_may_be_nested() -> None:
    """Dots go on behind the colon, and packages before it."""
    inner = load_object("shop:App.Inner")

    assert isinstance(inner, type)
    assert inner.__qualname__ == "App.Inner"
    assert load_object("package.shop:NUMBER") == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("shpo", "no module named 'shpo'"),
        ("shpo.app:App", "no module named 'shpo'"),
        ("package.shpo", "no module named 'package.shpo'"),
        ("shop.py", "no module named 'shop.py', nor a file: write 'shop'"),
        ("shop:Ap", "module 'shop' has no attribute 'Ap' (did you mean 'App'?)"),
        ("shop:Zebra", "module 'shop' has no attribute 'Zebra'"),
        (
            "shop:App.Iner",
            "'App' of module 'shop' has no attribute 'Iner' (did you mean 'Inner'?)",
        ),
    ],
)
def test_what_is_not_there_is_named(spec: str, message: str) -> None:
    """With the nearest name where there is one."""
    with pytest.raises(AppError, match=f"^{re.escape(message)}$"):
        load_object(spec)


@pytest.mark.parametrize("spec", ["", ":App", "shop:", ".shop", "shop..x", "shop:App.", "shop:."])
def test_what_is_no_name_is_refused(spec: str) -> None:
    """Before anything is imported."""
    message = f"an app is named 'module' or 'module:attr', not {spec!r}"
    with pytest.raises(AppError, match=f"^{re.escape(message)}$"):
        load_object(spec)


def test_a_failing_import_inside_is_the_modules_own() -> None:
    """It is not taken for a missing app."""
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'is_not_there'$"):
        load_object("broken")


def test_a_class_is_called_and_everything_else_is_an_app_already() -> None:
    """Modules and objects stay what they are."""
    assert isinstance(instantiate(Outer), Outer)
    assert instantiate(BOUND) is BOUND
    assert instantiate(re) is re


@pytest.mark.parametrize(
    ("found", "spec"),
    [
        (Outer, f"{__name__}:Outer"),
        (Outer.Inner, f"{__name__}:Outer.Inner"),
        (BOUND, f"{__name__}:BOUND"),
        (re, "re"),
    ],
)
def test_the_way_back(found: object, spec: str) -> None:
    """A name leads to the very object that it was made of."""
    assert spec_of(found) == spec
    assert load_object(spec) is found


def made_inside() -> type:
    class Local:
        pass

    return Local


def made_elsewhere() -> type:
    return type("Lost", (), {"__module__": "not_a_module"})


def made_again() -> type:
    return type("Outer", (), {"__module__": __name__, "__qualname__": "Outer"})


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (made_inside(), "it is made inside a function"),
        (made_elsewhere(), "there is no module 'not_a_module'"),
        (made_again(), f"{__name__}:Outer is something else"),
        (
            Outer(),
            (
                f"it has no name in module {__name__!r}, where its class is: "
                "give 'module:attr' in its place"
            ),
        ),
    ],
)
def test_there_is_no_way_back(found: object, message: str) -> None:
    """And the message says why."""
    with pytest.raises(AppError, match=f"^{re.escape(message)}$"):
        spec_of(found)


@pytest.mark.parametrize(
    ("main", "is_found"),
    [
        ({"__file__": __file__}, True),
        ({"__file__": "<stdin>"}, False),
        ({}, False),
        ({"__spec__": "package.module"}, True),
        ({"__spec__": "package.__main__"}, False),
        ({"__spec__": "__main__"}, False),
    ],
    ids=str,
)
def test_a_main_module_counts_if_multiprocessing_runs_it_again(
    monkeypatch: pytest.MonkeyPatch, main: dict[str, str], *, is_found: bool
) -> None:
    """A script and ``python -m module`` do, ``-c``, stdin and a package's ``__main__`` do not."""
    module = types.ModuleType("__main__")
    if "__spec__" in main:
        module.__spec__ = types.SimpleNamespace(name=main["__spec__"])  # type: ignore[assignment]  # a part of it
    else:
        vars(module).update(main)
    app = type("App", (), {"__module__": "__main__"})
    vars(module)["App"] = app
    monkeypatch.setitem(sys.modules, "__main__", module)

    if is_found:
        assert spec_of(app) == "__main__:App"
    else:
        with pytest.raises(AppError, match=r"^no other process can import this __main__$"):
            spec_of(app)


def test_only_a_process_that_runs_the_script_again_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """multiprocessing marks it while it does so."""
    refuse_in_spawned_child()
    child = types.SimpleNamespace(name="Process-1", _inheriting=True)
    monkeypatch.setattr("multiprocessing.current_process", lambda: child)
    with pytest.raises(AppError, match=f"^{re.escape(UNGUARDED)}$"):
        refuse_in_spawned_child()
