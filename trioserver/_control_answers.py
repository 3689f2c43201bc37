"""What a control client asks, and what it is answered: plain objects, without a socket.

A request is ``{"command": "cancel", "id": 5}``. An answer has ``"ok": true`` and what was asked
for, or ``"ok": false`` and ``"error"``, in words.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import attrs

import trioserver
from trioserver._errors import AppError, summary_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from trioserver._controls import Controls
    from trioserver._statistics import ServerStatistics

    Answer = dict[str, Any]

logger = logging.getLogger("trioserver.server")

_MAX_NUMBER: Final = 2**63 - 1
_SHOWN: Final = 60
"""Characters of something wrong that are quoted."""


async def answer(request: object, controls: Controls) -> Answer:
    """Do what is asked; never raises but for cancellation."""
    try:
        command, arguments = _parse(request)
        found = command(controls, arguments)
        if not isinstance(found, dict):
            found = await found
    except KeyError as exc:  # whose str() would have quotes around it
        return refusal(str(exc.args[0]) if exc.args else "not found")
    except (ValueError, RuntimeError, AppError) as exc:
        return refusal(str(exc) or summary_of(exc))
    except Exception as exc:
        logger.exception("a request by the control socket failed")
        return refusal(f"the server could not do that: {summary_of(exc)}")
    return {"ok": True, **found}


def refusal(reason: str) -> Answer:
    """The answer that something was not done."""
    return {"ok": False, "error": reason}


def _parse(request: object) -> tuple[_Command, Mapping[str, Any]]:
    if not isinstance(request, dict):
        raise ValueError(f"a request is a JSON object: {_quoted(request)}")  # noqa: TRY004  # of a client
    arguments = dict(request)
    name = arguments.pop("command", None)
    if not isinstance(name, str) or name not in _COMMANDS:
        raise ValueError(f"command must be one of {', '.join(_COMMANDS)}: {_quoted(name)}")
    command, wanted = _COMMANDS[name]
    for key in arguments:
        if key not in wanted:
            raise ValueError(f"{name} takes no {_quoted(key)}")
    for key, (kind, default) in wanted.items():
        value = arguments.setdefault(key, default)
        # Not by isinstance: to Python True is a number.
        is_right = type(value) is kind
        if not is_right or (isinstance(value, int) and not 0 <= value <= _MAX_NUMBER):
            what = "true or false" if kind is bool else "a number, 0 or above"
            raise ValueError(f"{name}: {key} must be {what}: {_quoted(value)}")
    return command, arguments


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _status(controls: Controls, _: Mapping[str, Any]) -> Answer:
    now = controls.statistics()
    return {
        "version": trioserver.__version__,
        "pid": now.pid,
        "uptime": now.uptime,
        "state": _state(now),
        "connections": now.connections,
        "event_workers": len(now.event_workers),
        "task_workers": len(now.workers),
        "idle_task_workers": now.idle_workers,
        "dead_task_workers": now.dead_workers,
        "tasks": {
            name: getattr(now, name)
            for name in (
                "posted",
                "queued",
                "running",
                "completed",
                "failed",
                "timed_out",
                "cancelled",
                "crashed",
                "abandoned",
                "retried",
            )
        },
        "oldest_queued": now.oldest_queued,
        "wait": attrs.asdict(now.wait),
        "run": attrs.asdict(now.run),
    }


def _state(now: ServerStatistics) -> str:
    if now.is_stopping:
        return "stopping"
    return "reloading" if now.is_reloading else "running"


def _workers(controls: Controls, _: Mapping[str, Any]) -> Answer:
    now = controls.statistics()
    return {
        "event_workers": [attrs.asdict(worker) for worker in now.event_workers],
        "task_workers": [
            {
                **attrs.asdict(worker, filter=lambda field, _: field.name != "running"),
                "running": [task.task_id for task in worker.running],
            }
            for worker in now.workers
        ],
    }


def _tasks(controls: Controls, _: Mapping[str, Any]) -> Answer:
    now = controls.statistics()
    return {
        "running": [
            {
                "id": task.task_id,
                "attempt": task.attempt,
                "since": task.since,
                "task_worker": worker.id,
                "pid": worker.pid,
            }
            for worker in now.workers
            for task in worker.running
        ],
        "queued": now.queued,
        "oldest_queued": now.oldest_queued,
    }


def _reload(controls: Controls, arguments: Mapping[str, Any]) -> Answer:
    controls.reload(only_task_workers=arguments["task_workers_only"])
    return {}


def _stop(controls: Controls, _: Mapping[str, Any]) -> Answer:
    controls.shutdown()
    return {}


def _cancel(controls: Controls, arguments: Mapping[str, Any]) -> Answer:
    if not controls.cancel(arguments["id"]):
        raise KeyError(f"no task {arguments['id']} is queued or running")
    return {}


async def _scale(controls: Controls, arguments: Mapping[str, Any]) -> Answer:
    await controls.scale(arguments["task_worker_num"])
    return {"task_workers": len(controls.statistics().workers)}


async def _stack(controls: Controls, arguments: Mapping[str, Any]) -> Answer:
    return {"stack": await controls.stack(arguments["id"])}


if TYPE_CHECKING:
    _Command = Callable[[Controls, Mapping[str, Any]], Answer | Awaitable[Answer]]

_ID: Final = {"id": (int, None)}
_COMMANDS: Final[dict[str, tuple[_Command, Mapping[str, tuple[type, object]]]]] = {
    "status": (_status, {}),
    "workers": (_workers, {}),
    "tasks": (_tasks, {}),
    "reload": (_reload, {"task_workers_only": (bool, False)}),
    "stop": (_stop, {}),
    "cancel": (_cancel, _ID),
    "scale": (_scale, {"task_worker_num": (int, None)}),
    "stack": (_stack, _ID),
}
"""What each does, and which arguments of which types it takes, with their defaults."""
