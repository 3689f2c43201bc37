"""What the README says is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from serving import ROOT

from trioserver._app import _CALLBACKS
from trioserver._layers import FIELDS

README = Path(ROOT, "README.md").read_text(encoding="utf-8")


def table(title: str) -> list[list[str]]:
    """The cells of the table whose first column is ``title``, row by row."""
    found = re.search(rf"^\| {title} \|.*\n\| ---.*\n((?:\|.*\n)+)", README, re.MULTILINE)
    assert found, title
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def _shown(default: object) -> str:
    text = ", ".join(default) if isinstance(default, tuple) else str(default)
    return f"`{text}`" if text else ""


def test_the_table_of_settings_is_the_class() -> None:
    """Every field with its default, unit and words, in the class's order."""
    assert table("setting") == [
        [
            f"`{name}`",
            _shown(field.default),
            field.metadata["unit"],
            field.metadata["doc"],
        ]
        for name, field in FIELDS.items()
    ]


@pytest.mark.parametrize("name", _CALLBACKS)
def test_every_callback_is_explained(name: str) -> None:
    """By its name and, where it is called, with its arguments and kind."""
    arguments, is_async = _CALLBACKS[name]
    signature = f"{'async ' if is_async else ''}{name}({', '.join(arguments)})"
    listed = {call for row in table("callback") for call in re.findall(r"`([^`]+)`", row[0])}

    assert signature in listed or f"`{name}` and" in README or f"and `{name}`" in README
