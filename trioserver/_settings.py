"""Settings: what can be set, to what, and where the values come from.

The class is the one source of truth. Its fields carry their own checks, words and units, of which
flags, ``--help``, ``--check`` and the docstring are made; nothing downstream checks again.
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from trioserver._addresses import UnixAddress, parse_address

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


def _more_than(bound: float) -> Check:
    return lambda value: None if value > bound else f"must be > {bound}"


def _finite_at_least(least: float) -> Check:
    return lambda value: None if least <= value < math.inf else f"must be >= {least} and finite"


def _from_to(least: int, most: int) -> Check:
    return lambda value: None if least <= value <= most else f"must be from {least} to {most}"


def _one_of(choices: tuple[str, ...]) -> Check:
    return lambda value: None if value in choices else f"must be one of {', '.join(choices)}"


def _unix_or_none(value: str) -> str | None:
    if not value:
        return None
    try:
        address = parse_address(value)
    except ValueError as exc:
        return f"has a bad address: {exc}"
    return None if isinstance(address, UnixAddress) else "must be unix:/path, or empty"


def _anything(_value: object) -> None:
    return None


def _addresses(value: tuple[str, ...]) -> str | None:
    if not value:
        return "must have at least one address"
    problems = []
    for text in value:
        try:
            parse_address(text)
        except ValueError as exc:
            problems.append(str(exc))
    return f"has a bad address: {'; '.join(problems)}" if problems else None


def _about(doc: str, *, unit: str, check: Check) -> dict[str, object]:
    """What a field says of itself: in words, in which unit, and which values are right."""
    return {"doc": doc, "unit": unit, "check": check}


def _as_tuple(value: str | Iterable[str]) -> tuple[str, ...]:
    """One text may stand without its list; what is not a list of texts is left for the check."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value  # type: ignore[return-value]  # see above


def _as_float(value: float) -> float:
    """Whole numbers are numbers, but text and truth values are left for the check."""
    try:
        return float(value) if type(value) is int else value
    except OverflowError:
        return value


@attrs.frozen(kw_only=True)
class Settings:
    """How an app is deployed: frozen, and checked as a whole when it is made.

    Raises:
      SettingsError: (a `ValueError`) with everything that is wrong.
    """

    bind: tuple[str, ...] = attrs.field(
        default=("127.0.0.1:9501",),
        converter=_as_tuple,
        metadata=_about(
            "Where to listen: host:port, [v6]:port or unix:/path; port 0 picks a free one; "
            "fd://NAME is a socket that systemd has passed, fd:// are all of them.",
            unit="address",
            check=_addresses,
        ),
    )
    worker_num: int = attrs.field(
        default=1,
        metadata=_about(
            "Event workers, which handle connections; from 2 on they have a manager, and share the "
            "task workers.",
            unit="processes",
            check=_from_to(1, 1000),
        ),
    )
    task_worker_num: int = attrs.field(
        default=0,
        metadata=_about("Task workers; 0 for none.", unit="processes", check=_at_least(0)),
    )
    max_queued_tasks: int = attrs.field(
        default=10_000,
        metadata=_about(
            "Tasks that may wait for a task worker, and completions that may wait for on_finish; "
            "beyond it, posting waits.",
            unit="tasks",
            check=_at_least(1),
        ),
    )
    max_queued_bytes: int = attrs.field(
        default=2**30,
        metadata=_about(
            "Pickled data of tasks that have not ended; and beside it, data and results that wait "
            "for on_finish; beyond it, posting waits.",
            unit="bytes",
            check=_at_least(1),
        ),
    )
    max_task_size: int = attrs.field(
        default=64 * 2**20,
        metadata=_about(
            "The largest data of one task, and the largest result, pickled.",
            unit="bytes",
            check=_at_least(1),
        ),
    )
    max_tasks_per_connection: int = attrs.field(
        default=0,
        metadata=_about(
            "Tasks that a connection may have posted by stream.task and not heard of; beyond it, "
            "its posting waits; 0 for any number.",
            unit="tasks",
            check=_at_least(0),
        ),
    )
    task_timeout: float = attrs.field(
        default=math.inf,
        converter=_as_float,
        metadata=_about(
            "How long a task may run before it is killed, unless its post says otherwise.",
            unit="seconds",
            check=_more_than(0),
        ),
    )
    task_concurrency: int = attrs.field(
        default=16,
        metadata=_about(
            "Tasks that a task worker runs at a time if on_task is a coroutine function; from 1 to "
            "100.",
            unit="tasks",
            check=_from_to(1, 100),
        ),
    )
    task_window: int = attrs.field(
        default=0,
        metadata=_about(
            "Tasks that a task worker may have in hand; 1 for only the one that runs, 0 for about "
            "2 ms of work.",
            unit="tasks",
            check=_at_least(0),
        ),
    )
    task_max_request: int = attrs.field(
        default=0,
        metadata=_about(
            "Tasks after which a task worker is replaced, or up to a quarter fewer, so that not "
            "all leave together; 0 for never.",
            unit="tasks",
            check=_at_least(0),
        ),
    )
    task_max_memory: int = attrs.field(
        default=0,
        metadata=_about(
            "Memory (RSS) beyond which a task worker is replaced after the task that it runs; 0 "
            "for any amount.",
            unit="bytes",
            check=_at_least(0),
        ),
    )
    max_request: int = attrs.field(
        default=0,
        metadata=_about(
            "Frames after which an event worker is replaced, or up to a quarter fewer, so that not "
            "all leave together; 0 for never.",
            unit="frames",
            check=_at_least(0),
        ),
    )
    worker_timeout: float = attrs.field(
        default=30.0,
        converter=_as_float,
        metadata=_about(
            "How long an event worker may fail to answer its manager before it is replaced.",
            unit="seconds",
            check=_more_than(0),
        ),
    )
    max_conn: int = attrs.field(
        default=10_000,
        metadata=_about(
            "Connections open at a time in an event worker; beyond it, clients wait in the "
            "backlog.",
            unit="connections",
            check=_at_least(1),
        ),
    )
    package_max_length: int = attrs.field(
        default=2 * 2**20,
        metadata=_about(
            "The longest frame, as on_receive gets it; a longer one closes its connection.",
            unit="bytes",
            check=_at_least(1),
        ),
    )
    max_wait_time: float = attrs.field(
        default=5.0,
        converter=_as_float,
        metadata=_about(
            "How long a stop waits for work in hand.", unit="seconds", check=_finite_at_least(0)
        ),
    )
    backlog: int = attrs.field(
        default=1024,
        metadata=_about(
            "Clients that the kernel lets wait to be accepted; the system may allow fewer.",
            unit="connections",
            check=_from_to(1, 2**31 - 1),
        ),
    )
    pid_file: str = attrs.field(
        default="",
        metadata=_about(
            "A file for the process id while the server runs; empty for none.",
            unit="path",
            check=_anything,
        ),
    )
    control: str = attrs.field(
        default="",
        metadata=_about(
            "Where python -m trioserver.ctl reaches the server: unix:/path, in a directory that "
            "nobody else may enter; empty for nowhere.",
            unit="address",
            check=_unix_or_none,
        ),
    )
    reload: bool = attrs.field(
        default=False,
        metadata=_about(
            "Whether to reload when a file of the app changes, for development.",
            unit="switch",
            check=_anything,
        ),
    )
    log_level: str = attrs.field(
        default="info",
        metadata=_about(
            f"What is logged on stderr: {', '.join(LOG_LEVELS)}.",
            unit="level",
            check=_one_of(LOG_LEVELS),
        ),
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
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list of texts",
}


def _documented(settings: type[Settings]) -> str:
    lines = [inspect.cleandoc(settings.__doc__ or ""), "", "Attributes:"]
    for field in attrs.fields(settings):
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        lines.append(
            f"  {field.name}: {field.metadata['doc']} ({field.metadata['unit']}; {default!r})"
        )
    return "\n".join(lines)


Settings.__doc__ = _documented(Settings)
