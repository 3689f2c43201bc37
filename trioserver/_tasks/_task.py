"""A task as its own code sees it, in a task worker.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import pickle
from typing import Any, Final, NoReturn, Protocol, final

from trioserver._errors import summary_of
from trioserver._tasks._recorder import PROGRESS_SIZE
from trioserver._tasks._wire import Answer


class TaskLink(Protocol):
    """What a running task can do beside returning; each kind of task worker has one."""

    def progress(self, seq: int, body: bytes) -> bool:
        """Pass on the newest value of the task; False if it is over."""

    def post(self, seq: int, body: bytes) -> int | None:
        """Post a new task: its id, or None if the task that posts it is over.

        Raises:
          trio.WouldBlock: if the queue is full.
          trio.ClosedResourceError: if nothing is accepted any more.
          ValueError: if ``body`` is larger than a task may be.
        """


NO_WAITING: Final = (
    "a task cannot wait for another task: all task workers could be waiting (deadlock); "
    "post it with task.post"
)


@final
class Task:
    """What ``on_task`` gets, in a task worker process.

    Its methods may be called from any thread while the task runs.
    """

    __slots__ = ("_link", "_seq", "attempt", "data", "id", "worker_id")

    id: int
    """The id that ``server.task`` returned."""
    data: Any  # only the app knows what it posts
    """What was posted: a copy of its own, unpickled here."""
    worker_id: int
    """The task worker that runs it, from 0 to ``task_worker_num`` - 1."""
    attempt: int
    """Counts from 1."""

    def __init__(
        self,
        task_id: int,
        data: object,
        worker_id: int,
        attempt: int,
        link: TaskLink,
        seq: int = 0,
    ) -> None:
        self.id = task_id
        self.data = data
        self.worker_id = worker_id
        self.attempt = attempt
        self._link = link
        self._seq = seq

    def progress(self, value: object) -> None:
        """Tell how far the task is: ``on_progress`` gets the newest value. Never waits.

        Values that come faster than they are handled replace each other.

        Args:
          value: At most 65512 bytes when it is pickled.

        Raises:
          TypeError: if ``value`` cannot be pickled.
          ValueError: if it is too large.
          RuntimeError: if the task is over.
        """
        body = _pickled(value, "progress value")
        if len(body) > PROGRESS_SIZE:
            raise ValueError(
                f"the progress value is {len(body)} bytes pickled, more than {PROGRESS_SIZE}"
            )
        if not self._link.progress(self._seq, body):
            raise self._is_over()

    def post(self, data: object) -> int:
        """Post a new task and do not wait for it: it completes where this one does.

        It blocks for as long as the server takes to accept the task, which is not long.

        Args:
          data: What ``on_task`` will get.

        Returns:
          The new task's id.

        Raises:
          trio.WouldBlock: if the queue is full.
          trio.ClosedResourceError: if the server stops.
          TypeError: if ``data`` cannot be pickled.
          ValueError: if it is larger than ``max_task_size``.
          RuntimeError: if the task is over.
        """
        task_id = self._link.post(self._seq, _pickled(data, "data"))
        if task_id is None:
            raise self._is_over()
        return task_id

    def run_task(self, *_args: object, **_options: object) -> NoReturn:
        """Refused: a task cannot wait for another one."""
        raise RuntimeError(NO_WAITING)

    def run_tasks(self, *_args: object, **_options: object) -> NoReturn:
        """Refused: a task cannot wait for others."""
        raise RuntimeError(NO_WAITING)

    def run_sync(self, *_args: object, **_options: object) -> NoReturn:
        """Refused: a task cannot wait for another one."""
        raise RuntimeError(NO_WAITING)

    def _is_over(self) -> RuntimeError:
        return RuntimeError(f"task {self.id} is over")

    def __repr__(self) -> str:
        return f"<Task {self.id} on task worker {self.worker_id}, attempt {self.attempt}>"


def _pickled(value: object, what: str) -> bytes:
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except BaseException as exc:  # pickling runs code of the user's, which may even exit
        raise TypeError(
            f"the {what} of type {type(value).__name__} cannot be pickled: {summary_of(exc)}"
        ) from exc


def id_of_posted(answer: int, task_id: int, reason: str) -> int:
    """The id of a task that a task has posted, or the refusal that Trio has a name for.

    Args:
      answer: An `Answer`.
      task_id: The id, if it was accepted.
      reason: Why it was not.
    """
    if answer == Answer.ACCEPTED:
        return task_id
    import trio  # noqa: PLC0415  # most workers never need it

    refused = trio.WouldBlock if answer == Answer.FULL else trio.ClosedResourceError
    raise refused(reason)
