"""What `trioserver.ctl` prints: answers of a server as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_KIBI: Final = 1024


def text_of(command: str, answer: dict[str, Any]) -> str:
    """The lines that say what ``command`` was answered; empty if there is nothing to say."""
    return _TEXTS[command](answer)


def _status(answer: dict[str, Any]) -> str:
    idle, dead = answer["idle_task_workers"], answer["dead_task_workers"]
    busy = answer["task_workers"] - idle - dead
    facts = [
        ("version", answer["version"]),
        ("pid", answer["pid"]),
        ("state", answer["state"]),
        ("uptime", _duration(answer["uptime"])),
        ("connections", answer["connections"]),
        ("event workers", answer["event_workers"]),
        (
            "task workers",
            f"{answer['task_workers']} ({busy} busy, {idle} idle, {dead} dead)",
        ),
        ("tasks", ""),
        *((f"  {name.replace('_', ' ')}", count) for name, count in answer["tasks"].items()),
        ("oldest queued", _duration(answer["oldest_queued"])),
    ]
    for what, title in (("wait", "waited for"), ("run", "ran for")):
        spread = ", ".join(f"{name} {_duration(value)}" for name, value in answer[what].items())
        facts.append((title, spread))
    width = max(len(name) for name, _ in facts)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in facts)


def _workers(answer: dict[str, Any]) -> str:
    events = _table(
        ("event worker", "pid", "state", "connections", "memory", "uptime"),
        (
            (
                worker["id"],
                _or_dash(worker["pid"]),
                worker["state"],
                worker["connections"],
                _size(worker["rss"]),
                _duration(worker["uptime"]),
            )
            for worker in answer["event_workers"]
        ),
    )
    tasks = _table(
        ("task worker", "pid", "state", "tasks done", "memory", "running"),
        (
            (
                worker["id"],
                _or_dash(worker["pid"]),
                worker["state"],
                worker["tasks_done"],
                _size(worker["rss"]),
                _or_dash(" ".join(map(str, worker["running"]))),
            )
            for worker in answer["task_workers"]
        ),
    )
    return f"{events}\n\n{tasks}" if answer["task_workers"] else events


def _tasks(answer: dict[str, Any]) -> str:
    queued = f"{answer['queued']} queued"
    if answer["queued"]:
        queued += f", the oldest for {_duration(answer['oldest_queued'])}"
    if not answer["running"]:
        return f"none running, {queued}"
    rows = (
        (task["id"], task["attempt"], task["task_worker"], task["pid"], _duration(task["since"]))
        for task in answer["running"]
    )
    table = _table(("task", "attempt", "task worker", "pid", "running for"), rows)
    return f"{table}\n\n{queued}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _or_dash(value: object) -> object:
    return "-" if value in {None, ""} else value


def _size(size: int | None) -> str:
    return "-" if size is None else f"{size / _KIBI / _KIBI:.1f} MiB"


def _duration(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{seconds:.3f} s"
    whole = int(seconds)
    parts = (
        (whole // _DAY, "d"),
        (whole % _DAY // _HOUR, "h"),
        (whole % _HOUR // _MINUTE, "min"),
        (whole % _MINUTE, "s"),
    )
    shown = [f"{number} {unit}" for number, unit in parts if number]
    return " ".join(shown[:2])


_TEXTS: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "status": _status,
    "workers": _workers,
    "tasks": _tasks,
    "reload": lambda _: "a reload was asked for",
    "stop": lambda _: "a stop was asked for",
    "cancel": lambda _: "cancelled",
    "scale": lambda answer: f"{answer['task_workers']} task workers",
    "stack": lambda answer: str(answer["stack"]),
}
