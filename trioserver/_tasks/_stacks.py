"""The Python stack of a running task: which process to ask, and which part of the answer it is."""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING, Final

import outcome
import trio
import trio_parallel

import trioserver
from trioserver._stacks import without_machinery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trioserver._tasks._statistics import RunningTask, TaskStatistics, TaskWorkerStatistics


def _directory_of(module: object) -> str:
    return os.path.join(os.path.dirname(getattr(module, "__file__", "")), "")


_MACHINERY: Final = (
    _directory_of(trioserver),
    _directory_of(trio),
    _directory_of(trio_parallel),
    os.path.join(
        os.path.dirname(os.path.dirname(trio_parallel.__file__)), "_trio_parallel_workers"
    ),
    _directory_of(outcome),
    _directory_of(multiprocessing),
    "<string>",
    "<frozen runpy>",
)
"""Where the frames below a task are from: of trio, too, where it is a coroutine."""


async def stack_of(
    task_id: int,
    statistics: Callable[[], TaskStatistics],
    frames_of: Callable[[TaskWorkerStatistics], Awaitable[list[str]]],
    *,
    is_async: bool,
) -> str:
    """The stack of a running task, from its most recent call to the app's ``on_task``.

    Args:
      task_id: Which task.
      statistics: Tells what runs where.
      frames_of: The frames of a task worker, the most recent one first, or a `RuntimeError`.
      is_async: Whether several tasks may run in one process.

    Raises:
      KeyError: if no such task runs, or it ended meanwhile.
      RuntimeError: as ``frames_of`` has it.
    """
    worker, task = _where(task_id, statistics())
    frames = await frames_of(worker)
    # Else what was seen may be the stack of the next one.
    if _where(task_id, statistics())[1].attempt != task.attempt:
        raise KeyError(f"task {task_id} has ended meanwhile, and runs again")
    lines = without_machinery(frames, _MACHINERY)
    if is_async:
        others = len(worker.running) - 1
        lines.insert(
            0,
            f"The main thread of task worker {worker.id} (pid {worker.pid}), which runs this task "
            f"and {others} other{'' if others == 1 else 's'}:",
        )
    return "\n".join(lines)


def _where(task_id: int, statistics: TaskStatistics) -> tuple[TaskWorkerStatistics, RunningTask]:
    for worker in statistics.workers:
        for task in worker.running:
            if task.task_id == task_id:
                return worker, task
    raise KeyError(f"no task {task_id} is running")
