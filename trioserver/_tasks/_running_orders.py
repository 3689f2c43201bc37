"""From one order to the report about it, whatever the user's code does in between.

What users return and raise goes through pickle here; so does every trial of whether it survives
that, since only this process may be harmed by it.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import inspect
import pickle
import traceback
from typing import TYPE_CHECKING, Final

from trioserver._errors import summary_of
from trioserver._importing import own_traceback
from trioserver._tasks._payloads import PLAIN, check_size, dump_plain, load
from trioserver._tasks._task import Task
from trioserver._tasks._wire import Failure, Kind, Order, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioserver._tasks._task import TaskLink

    OnTask = Callable[[Task], object]

TEXT_SIZE: Final = 64 * 1024
"""Bytes of a traceback or a summary at the most."""
_RESULT: Final = "the task's result"
_PROTOCOL: Final = pickle.HIGHEST_PROTOCOL
# Plain numbers, because every task is compared with them, and reported by them.
_CALL: Final = int(Kind.CALL)
_OK: Final = int(Status.OK)
_FAILED: Final = int(Status.FAILED)
_CUT: Final = "... (cut)"


def run_order(
    on_task: OnTask, order: Order, worker_id: int, link: TaskLink, max_task_size: int
) -> tuple[int, bytes]:
    """Run one order; status and body of the report about it.

    Args:
      on_task: The app's, a plain function.
      order: A task or a call.
      worker_id: Where it runs.
      link: What the task can do.
      max_task_size: Bytes of its pickled result at the most.
    """
    seq, task_id, attempt, kind, body = order
    try:
        if kind == _CALL:
            fn, args = load(body)
            value = fn(*args)
        else:
            value = on_task(Task(task_id, load(body), worker_id, attempt, link, seq))
        return _OK, pack_result(value, max_task_size)
    except BaseException as exc:  # noqa: BLE001  # rule: each task is guarded by itself
        return _FAILED, pack_failure(exc, max_task_size)


def pack_result(value: object, max_task_size: int) -> bytes:
    """The body of a report of `Status.OK`.

    Raises:
      TypeError: if ``value`` does not survive pickling.
      ValueError: if it is too large.
    """
    if type(value) in PLAIN or type(value) is bytes:  # what comes back as it went needs no trial
        body = pickle.dumps(value, _PROTOCOL) if type(value) is bytes else dump_plain(value)
        if len(body) > max_task_size:
            check_size(body, _RESULT, max_task_size)
        return body
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError("the task returned a coroutine; it was not awaited")
    try:
        body = pickle.dumps(value, _PROTOCOL)
        if len(body) <= max_task_size:
            pickle.loads(body)
    except BaseException as exc:  # unpickling runs code of the user's, which may even exit
        raise TypeError(
            f"the task's result of type {type(value).__name__} cannot be pickled: {summary_of(exc)}"
        ) from exc
    check_size(body, _RESULT, max_task_size)
    return body


def pack_failure(exc: BaseException, max_task_size: int) -> bytes:
    """The body of a report of `Status.FAILED`; never raises."""
    try:
        pickled = pickle.dumps(exc, _PROTOCOL)
        if len(pickled) > max_task_size or type(pickle.loads(pickled)) is not type(exc):
            pickled = b""
    except BaseException:  # noqa: BLE001  # its words are what is left of it
        pickled = b""
    return Failure(cut(summary_of(exc)), traceback_text(exc), pickled).pack()


def traceback_text(exc: BaseException) -> str:
    """The traceback of ``exc``, from the user's first frame on; never raises."""
    try:
        # The first frames are ours, and say nothing to the user.
        tb = own_traceback(exc.__traceback__)
        return cut("".join(traceback.format_exception(type(exc), exc, tb)))
    except BaseException as broken:  # noqa: BLE001  # a class can break even this
        return cut(f"<the traceback cannot be shown: {summary_of(broken)}>\n")


def cut(text: str) -> str:
    """``text``, or its begin and a mark if it is longer than `TEXT_SIZE` bytes."""
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) <= TEXT_SIZE:
        return text
    return encoded[: TEXT_SIZE - len(_CUT)].decode(errors="ignore") + _CUT
