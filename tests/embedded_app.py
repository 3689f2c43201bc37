"""Apps for tests that open a task pool. No trio here: a worker that imports it starts slowly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import task_app

if TYPE_CHECKING:
    from trioserver import Completion, Task


class Teller:
    """Keeps what it is told; a task is a function of `task_app`, or one of this module."""

    def __init__(self) -> None:
        self.finished: list[Completion] = []
        self.progress: list[tuple[int, object]] = []

    def on_task(self, task: Task) -> object:
        function, *args = task.data
        return function(task, *args) if function in OF_TASKS else function(*args)

    async def on_finish(self, completion: Completion) -> None:
        self.finished.append(completion)

    async def on_progress(self, task_id: int, value: object) -> None:
        self.progress.append((task_id, value))


first = Teller()
second = Teller()


class NoFinish:
    def on_task(self, task: Task) -> object:
        return task.data


class NoTask:
    async def on_finish(self, completion: Completion) -> None:
        pass


class FailsToOpen(Teller):
    def on_task_worker_start(self, worker_id: int) -> None:
        raise RuntimeError(f"no database for {worker_id}")


# Tasks that want more than their data


def tell(task: Task, value: object, gate: str) -> object:
    task.progress(value)
    task_app.wait(gate)
    return value


def post(task: Task, *data: object) -> int:
    return task.post(data)


OF_TASKS = (tell, post)
