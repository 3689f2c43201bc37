"""What a post may ask for, and what is wrong with it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trioserver._tasks._options import PLAIN, Options

RIGHT: dict[str, Any] = {
    "timeout": 1.0,
    "queue_timeout": math.inf,
    "retries": 0,
    "task_worker": None,
    "workers": 4,
}


def test_what_is_asked_for_is_kept() -> None:
    """Seconds as floats, so that whole numbers are right, too."""
    options = Options.checked(2, 0.5, 3, 1, workers=4)

    assert options == Options(timeout=2.0, queue_timeout=0.5, retries=3, task_worker=1)
    assert type(options.timeout) is float


def test_what_is_longer_than_any_number_is_without_end() -> None:
    """Whole numbers may be as large as one likes."""
    assert Options.checked(10**400, 10**400, 0, None, workers=1) == PLAIN


def test_nothing_is_limited_unless_asked_for() -> None:
    """A plain task runs as long as it likes, once, anywhere."""
    assert Options(math.inf, math.inf, 0, None) == PLAIN


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("timeout", 0, r"timeout must be > 0 seconds: 0"),
        ("timeout", -1.5, r"timeout must be > 0 seconds: -1\.5"),
        ("timeout", math.nan, r"timeout must be > 0 seconds: nan"),
        ("timeout", "5", r"timeout must be a number of seconds: '5'"),
        ("timeout", True, r"timeout must be a number of seconds: True"),
        ("queue_timeout", 0, r"queue_timeout must be > 0 seconds: 0"),
        ("queue_timeout", None, r"queue_timeout must be a number of seconds: None"),
        ("retries", -1, r"retries must be >= 0: -1"),
        ("retries", 1.0, r"retries must be a whole number: 1\.0"),
        ("retries", False, r"retries must be a whole number: False"),
        ("task_worker", 4, r"task_worker must be from 0 to 3: 4"),
        ("task_worker", -1, r"task_worker must be from 0 to 3: -1"),
        ("task_worker", "1", r"task_worker must be a whole number: '1'"),
    ],
)
def test_a_wrong_option_is_named(name: str, value: object, problem: str) -> None:
    """With its value; the type of the error says what is wrong with it."""
    expected = TypeError if "number" in problem else ValueError

    with pytest.raises(expected, match=f"^{problem}$"):
        Options.checked(**{**RIGHT, name: value})
