"""What tasks do, for us and for all peers; task workers load no more than this."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trioserver import Completion, Connection, Task


def same(value: Any) -> Any:
    """Nothing but give it back."""
    return value


def nap(seconds: float) -> float:
    """Wait, as for a disk or a database; when it began, on the system's monotonic clock."""
    began = time.monotonic()
    time.sleep(seconds)
    return began


class _Bare:
    """What an app must have."""

    async def on_receive(self, stream: Connection, data: bytes) -> None: ...

    async def on_finish(self, completion: Completion) -> None: ...


class Same(_Bare):
    """The app whose tasks are `same`; it counts those of which its ``on_finish`` has heard."""

    finished = 0

    def on_task(self, task: Task) -> object:
        return same(task.data)

    async def on_finish(self, completion: Completion) -> None:
        assert completion.error is None
        Same.finished += 1


class Nap(_Bare):
    """The app whose tasks are `nap`."""

    def on_task(self, task: Task) -> object:
        return nap(task.data)


class Gate(_Bare):
    """The app whose tasks are `same`, but for a text: those last as long as that file exists."""

    def on_task(self, task: Task) -> object:
        while isinstance(task.data, str) and os.path.exists(task.data):
            time.sleep(0.01)
        return same(task.data)
