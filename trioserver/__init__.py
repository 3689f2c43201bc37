"""A TCP server on Trio whose slow work runs in processes of its own, after ``Swoole\\Server``.

Names are imported when they are first asked for: a task worker whose app needs only `Settings` or a
framing starts without Trio.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trioserver._cli import run as run
    from trioserver._embedding import TaskPool as TaskPool
    from trioserver._embedding import open_task_pool as open_task_pool
    from trioserver._errors import AddressError as AddressError
    from trioserver._errors import AppError as AppError
    from trioserver._errors import FrameTooLargeError as FrameTooLargeError
    from trioserver._errors import FramingError as FramingError
    from trioserver._errors import IncompleteFrameError as IncompleteFrameError
    from trioserver._errors import TaskCancelled as TaskCancelled
    from trioserver._errors import TaskError as TaskError
    from trioserver._errors import TaskFailed as TaskFailed
    from trioserver._errors import TaskTimeout as TaskTimeout
    from trioserver._errors import TaskWorkerCrashed as TaskWorkerCrashed
    from trioserver._errors import TrioserverError as TrioserverError
    from trioserver._net._connection import Connection as Connection
    from trioserver._net._framing import Decoder as Decoder
    from trioserver._net._framing import EofFraming as EofFraming
    from trioserver._net._framing import FixedFraming as FixedFraming
    from trioserver._net._framing import Framing as Framing
    from trioserver._net._framing import LengthFraming as LengthFraming
    from trioserver._net._framing import RawFraming as RawFraming
    from trioserver._server import Server as Server
    from trioserver._serving import serve as serve
    from trioserver._settings import Settings as Settings
    from trioserver._settings import SettingsError as SettingsError
    from trioserver._statistics import EventWorkerStatistics as EventWorkerStatistics
    from trioserver._statistics import ServerStatistics as ServerStatistics
    from trioserver._tasks._statistics import Quantiles as Quantiles
    from trioserver._tasks._statistics import RunningTask as RunningTask
    from trioserver._tasks._statistics import TaskStatistics as TaskStatistics
    from trioserver._tasks._statistics import TaskWorkerStatistics as TaskWorkerStatistics
    from trioserver._tasks._task import Task as Task
    from trioserver._tasks._values import Completion as Completion

__version__ = "0.1.0.dev0"

_HOMES: Final = {
    "_cli": ("run",),
    "_embedding": ("TaskPool", "open_task_pool"),
    "_errors": (
        "AddressError",
        "AppError",
        "FrameTooLargeError",
        "FramingError",
        "IncompleteFrameError",
        "TaskCancelled",
        "TaskError",
        "TaskFailed",
        "TaskTimeout",
        "TaskWorkerCrashed",
        "TrioserverError",
    ),
    "_net._connection": ("Connection",),
    "_net._framing": (
        "Decoder",
        "EofFraming",
        "FixedFraming",
        "Framing",
        "LengthFraming",
        "RawFraming",
    ),
    "_server": ("Server",),
    "_statistics": ("EventWorkerStatistics", "ServerStatistics"),
    "_serving": ("serve",),
    "_settings": ("Settings", "SettingsError"),
    "_tasks._task": ("Task",),
    "_tasks._statistics": ("Quantiles", "RunningTask", "TaskStatistics", "TaskWorkerStatistics"),
    "_tasks._values": ("Completion",),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605  # made of the table, so that there is one


if not TYPE_CHECKING:  # which would take any name for one of ours

    def __getattr__(name: str) -> object:
        try:
            home = _HOME_OF[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return [*globals(), *_HOME_OF]
