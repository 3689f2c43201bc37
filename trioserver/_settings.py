"""Settings: what can be set, to what, and where the values come from.

The class is the one source of truth. Its fields carry their own checks, words and units, of which
flags, ``--help``, ``--check`` and the docstring are made; nothing downstream checks again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from trioserver._addresses import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Check: TypeAlias = "Callable[[Any], str | None]"

LOG_LEVELS: Final = ("debug", "info", "warning", "error")


class SettingsError(ValueError):
    """Settings are wrong: all of them at once.

    Args:
      problems: Name of the setting and what is wrong with it.
    """

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        self.problems = list(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(problem for _, problem in self.problems)


def _at_least(least: float) -> Check:
    return lambda value: None if value >= least else f"must be >= {least}"


def _finite_at_least(least: float) -> Check:
    return lambda value: (
        None if least <= value < math.inf else f"must be >= {least} and finite"
    )


def _one_of(choices: tuple[str, ...]) -> Check:
    return lambda value: None if value in choices else f"must be one of {', '.join(choices)}"


def _one_for_now(value: int) -> str | None:
    if value < 1:
        return "must be >= 1"
    return "must be 1, since several event workers do not exist yet" if value > 1 else None


def _addresses(value: tuple[str, ...]) -> str | None:
    if not value:
        return "must have at least one address"
    for text in value:
        try:
            parse_address(text)
        except ValueError as exc:
            return f"has a bad address: {exc}"
    return None


def _setting(default: Any, doc: str, *, check: Check, unit: str = "") -> Any:  # noqa: ANN401
    """A field with its words, its unit and its check."""
    converter = _as_tuple if isinstance(default, tuple) else _as_float_if_int(default)
    metadata = {"doc": doc, "unit": unit, "check": check}
    return attrs.field(default=default, metadata=metadata, converter=converter)


def _as_tuple(value: object) -> object:
    """One address may stand without its list."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _as_float_if_int(default: object) -> Callable[[object], object] | None:
    if not isinstance(default, float):
        return None
    return lambda value: float(value) if type(value) is int else value


@attrs.frozen(kw_only=True)
class Settings:
    """How an app is deployed: frozen, and checked as a whole when it is made.

    Raises:
      SettingsError: (a `ValueError`) with everything that is wrong.
    """

    bind: tuple[str, ...] = _setting(
        ("127.0.0.1:9501",),
        "Where to listen: host:port, [v6]:port or unix:/path; port 0 picks a free one.",
        check=_addresses,
    )
    worker_num: int = _setting(
        1, "Event worker processes; only 1 for now.", unit="processes", check=_one_for_now
    )
    task_worker_num: int = _setting(
        0, "Task worker processes; 0 for an app without tasks.", unit="processes", check=_at_least(0)
    )
    max_queued_tasks: int = _setting(
        10_000,
        "Tasks that may wait for a worker, and completions that may wait for on_finish; beyond it "
        "posting waits.",
        unit="tasks",
        check=_at_least(1),
    )
    max_conn: int = _setting(
        10_000,
        "Connections open at a time; beyond it clients wait in the backlog.",
        unit="connections",
        check=_at_least(1),
    )
    package_max_length: int = _setting(
        2 * 2**20,
        "The longest frame, as on_receive gets it; a longer one closes its connection.",
        unit="bytes",
        check=_at_least(1),
    )
    max_wait_time: float = _setting(
        5.0, "How long a stop waits for work in hand.", unit="seconds", check=_finite_at_least(0)
    )
    backlog: int = _setting(
        1024,
        "Connections that the kernel keeps while they wait to be accepted (at most somaxconn).",
        unit="connections",
        check=_at_least(1),
    )
    log_level: str = _setting(
        "info", f"What is logged on stderr: {', '.join(LOG_LEVELS)}.", check=_one_of(LOG_LEVELS)
    )

    def __attrs_post_init__(self) -> None:
        problems = [
            (field.name, f"{field.name} {problem}")
            for field in attrs.fields(type(self))
            if (problem := _problem(field, getattr(self, field.name))) is not None
        ]
        if problems:
            raise SettingsError(problems)


def _problem(field: attrs.Attribute[Any], value: object) -> str | None:
    """What is wrong with ``value``, after the field's name."""
    wanted = type(field.default)
    if wanted is tuple:
        is_right = isinstance(value, tuple) and all(isinstance(text, str) for text in value)
    else:
        is_right = type(value) is wanted
    if not is_right:
        return f"must be {_TYPE_NAMES[wanted]}: {value!r}"
    problem: str | None = field.metadata["check"](value)
    if problem is None or wanted is tuple:
        return problem
    return f"{problem}: {value!r}"


_TYPE_NAMES: Final = {
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list of texts",
}


def _documented(settings: type[Settings]) -> None:
    lines = [settings.__doc__ or "", "", "    Attributes:"]
    for field in attrs.fields(settings):
        unit = f", in {field.metadata['unit']}" if field.metadata["unit"] else ""
        lines.append(f"      {field.name}: {field.metadata['doc']} {field.default!r}{unit}.")
    settings.__doc__ = "\n".join(lines)


_documented(Settings)
