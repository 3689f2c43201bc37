"""Settings in code: types, ranges, and one error for all that is wrong."""

from __future__ import annotations

import math
import pickle
import re
from typing import Any

import attrs
import pytest

from trioserver import Settings, SettingsError

FIELDS = attrs.fields(Settings)


def test_defaults() -> None:
    """What is served unless something is said."""
    assert attrs.asdict(Settings()) == {
        "bind": ("127.0.0.1:9501",),
        "worker_num": 1,
        "task_worker_num": 0,
        "max_queued_tasks": 10_000,
        "max_queued_bytes": 2**30,
        "max_task_size": 67_108_864,
        "max_tasks_per_connection": 0,
        "task_timeout": math.inf,
        "task_concurrency": 16,
        "task_window": 0,
        "task_max_request": 0,
        "task_max_memory": 0,
        "max_request": 0,
        "worker_timeout": 30.0,
        "max_conn": 10_000,
        "package_max_length": 2_097_152,
        "max_wait_time": 5.0,
        "backlog": 1024,
        "pid_file": "",
        "control": "",
        "reload": False,
        "log_level": "info",
    }


def test_they_are_values() -> None:
    """Frozen, comparable, and they survive pickling."""
    settings = Settings(task_worker_num=2)

    assert pickle.loads(pickle.dumps(settings)) == settings == Settings(task_worker_num=2)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        settings.task_worker_num = 3  # type: ignore[misc]  # that is the test


def test_only_keywords() -> None:
    """Their order means nothing."""
    with pytest.raises(TypeError):
        Settings("127.0.0.1:9501")  # type: ignore[call-arg]  # that is the test


@pytest.mark.parametrize("bind", ["a:1", ["a:1"], ("a:1",)])
def test_one_address_needs_no_list(bind: Any) -> None:
    """Text, a list and a tuple say the same."""
    assert Settings(bind=bind).bind == ("a:1",)


def test_a_whole_number_is_a_number() -> None:
    """``5`` seconds are ``5.0``."""
    assert isinstance(Settings(max_wait_time=5).max_wait_time, float)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("bind", (), "bind must have at least one address"),
        ("bind", 9501, "bind must be a list of texts: 9501"),
        ("bind", ["a:1", 2], "bind must be a list of texts: ('a:1', 2)"),
        (
            "bind",
            ["a:x", "b:1", "unix:"],
            (
                "bind has a bad address: a port is a number from 0 to 65535: 'a:x'; "
                "a Unix address is 'unix:/path': 'unix:'"
            ),
        ),
        ("worker_num", 0, "worker_num must be from 1 to 1000: 0"),
        ("task_worker_num", -1, "task_worker_num must be >= 0: -1"),
        ("task_worker_num", "4", "task_worker_num must be a whole number: '4'"),
        ("task_worker_num", 4.0, "task_worker_num must be a whole number: 4.0"),
        ("task_worker_num", True, "task_worker_num must be a whole number: True"),
        ("task_worker_num", None, "task_worker_num must be a whole number: None"),
        ("max_queued_tasks", 0, "max_queued_tasks must be >= 1: 0"),
        ("max_conn", 0, "max_conn must be >= 1: 0"),
        ("package_max_length", 0, "package_max_length must be >= 1: 0"),
        ("max_wait_time", -0.1, "max_wait_time must be >= 0 and finite: -0.1"),
        ("max_wait_time", math.nan, "max_wait_time must be >= 0 and finite: nan"),
        ("max_wait_time", math.inf, "max_wait_time must be >= 0 and finite: inf"),
        ("max_wait_time", "5", "max_wait_time must be a number: '5'"),
        ("max_wait_time", False, "max_wait_time must be a number: False"),
        ("max_wait_time", 10**400, f"max_wait_time must be a number: {10**400}"),
        ("max_queued_bytes", 0, "max_queued_bytes must be >= 1: 0"),
        ("max_task_size", 1.5, "max_task_size must be a whole number: 1.5"),
        ("max_tasks_per_connection", -1, "max_tasks_per_connection must be >= 0: -1"),
        ("task_timeout", 0, "task_timeout must be > 0: 0.0"),
        ("task_timeout", math.nan, "task_timeout must be > 0: nan"),
        ("task_concurrency", 101, "task_concurrency must be from 1 to 100: 101"),
        ("task_window", -1, "task_window must be >= 0: -1"),
        ("task_max_request", -1, "task_max_request must be >= 0: -1"),
        ("task_max_memory", True, "task_max_memory must be a whole number: True"),
        ("backlog", 0, "backlog must be from 1 to 2147483647: 0"),
        ("backlog", 2**31, "backlog must be from 1 to 2147483647: 2147483648"),
        ("log_level", 10, "log_level must be text: 10"),
        ("log_level", "loud", "log_level must be one of debug, info, warning, error: 'loud'"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: Any, problem: str) -> None:
    """The message has the setting, the rule and the value."""
    with pytest.raises(SettingsError, match=f"^{re.escape(problem)}$"):
        Settings(**{name: value})


def test_everything_that_is_wrong_is_said_at_once() -> None:
    """One error, a line for each; it is a ValueError, and knows the names."""
    with pytest.raises(
        ValueError, match=r"\Atask_worker_num must be >= 0: -1\nmax_conn must be >= 1: 0\Z"
    ) as caught:
        Settings(max_conn=0, task_worker_num=-1)

    assert isinstance(caught.value, SettingsError)
    assert [name for name, _ in caught.value.problems] == ["task_worker_num", "max_conn"]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_each_field_explains_itself(field: attrs.Attribute[Any]) -> None:
    """In a sentence and with a unit, which is also what the docstring says."""
    doc, unit = field.metadata["doc"], field.metadata["unit"]

    assert doc.endswith(".")
    assert unit
    assert f"  {field.name}: {doc} ({unit}; " in (Settings.__doc__ or "")
