"""The value that users see of a task that has ended."""

from __future__ import annotations

import pickle
from copy import copy
from typing import TYPE_CHECKING, Any, Final, final

import trio

from trioserver._errors import (
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskTimeout,
    TaskWorkerCrashed,
    summary_of,
)
from trioserver._tasks._payloads import load
from trioserver._tasks._wire import Failure, Status, unpack_timeout

if TYPE_CHECKING:
    from trioserver._tasks._job import Job


_UNSET = object()
_OK: Final = int(Status.OK)  # a plain number is compared faster


@final
class Completion:
    """How a task ended: what ``on_finish`` gets, exactly once for every accepted task.

    ``result`` raises an error like ``error`` if there is one, as a future's does. Data and result
    are unpickled when they are first asked for.
    """

    __slots__ = ("_data", "_error", "_job", "_result")

    def __init__(self, job: Job) -> None:
        self._job = job
        self._data: object = _UNSET
        self._result: object = _UNSET
        self._error: TaskError | None = None

    @property
    def task_id(self) -> int:
        """The id that ``server.task`` returned."""
        return self._job.id

    @property
    def data(self) -> Any:  # only the app knows what it posts
        """What was posted: a copy as it was at the call."""
        if self._data is _UNSET:
            self._data = load(self._job.payload)
        return self._data

    @property
    def stream(self) -> Any:  # Connection | None, but an app knows by which door it posted
        """The `Connection` that owns the task, None for a task of the server's.

        After the connection has closed it is here still, and sending on it raises
        `trio.ClosedResourceError`.
        """
        return self._job.stream

    @property
    def attempt(self) -> int:
        """The attempt that ended it, or the last one that ran; counts from 1."""
        is_unrun = self._job.worker_id is None and self._job.attempt > 1
        return self._job.attempt - is_unrun

    @property
    def waited(self) -> float:
        """Seconds in the queue before the run that ended it, or before the end if it never ran.

        From the post on, or from when the time for one more attempt had come.
        """
        return max(0.0, self._job.begun_at - self._job.queued_at)

    @property
    def ran(self) -> float:
        """Seconds that it ran; 0 for a task that never began."""
        return self._job.ran

    @property
    def task_worker(self) -> int | None:
        """The task worker that ran it (``task.worker_id``), None for a task that never began."""
        return self._job.worker_id

    @property
    def error(self) -> TaskError | None:
        """Why there is no result: one of the `TaskError` family; None if there is one."""
        self._settle()
        return self._error

    @property
    def result(self) -> Any:  # only the app knows what its tasks return
        """What ``on_task`` returned.

        Raises:
          TaskError: if the task did not end with a result.
        """
        self._settle()
        if self._error is not None:
            # The traceback leads to frames that hold this completion. If it were kept here as well
            # the two would be a cycle, and data and result in memory until that is collected.
            raise copy(self._error)
        return self._result

    def unwrap(self) -> Any:
        """``result``, by the name that `outcome.Outcome` has for it."""
        return self.result

    @property
    def _has_begun(self) -> bool:
        """Whether it has begun to run, be it in an earlier attempt."""
        return self._job.worker_id is not None or self._job.attempt > 1

    @trio.lowlevel.enable_ki_protection
    def _settle(self) -> None:
        """Unpickle, and let a Ctrl-C wait until that is over: it is not the result's fault."""
        if self._error is not None or self._result is not _UNSET:
            return
        assert self._job.status is not None, "a completion is made of a job that has ended"
        status, body = self._job.status, self._job.body
        if status == _OK:
            try:
                self._result = load(body)
            except BaseException as exc:  # noqa: BLE001  # unpickling runs code of the user's, which may even exit
                self._error = TaskFailed(f"the result cannot be unpickled: {summary_of(exc)}")
        elif status == Status.FAILED:
            self._error = _task_failed(Failure.unpack(body))
        elif status == Status.CANCELLED:
            self._error = TaskCancelled(body.decode(), self._has_begun)
        elif status == Status.TIMED_OUT:
            self._error = TaskTimeout(*unpack_timeout(body))
        else:
            self._error = TaskWorkerCrashed(int(body) if body else None)

    def __repr__(self) -> str:
        return f"<Completion of task {self.task_id}, attempt {self.attempt}>"


def _task_failed(failure: Failure) -> TaskFailed:
    original = None
    if failure.pickled:
        try:
            original = pickle.loads(failure.pickled)
        except BaseException:  # noqa: BLE001  # it survived in the worker only; its words are in the summary
            original = None
        if not isinstance(original, BaseException):
            original = None
    return TaskFailed(failure.summary, failure.remote_traceback, original)
