"""What a post may ask for beside its data, checked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from typing import Self


@attrs.frozen
class Options:
    """How a task is run; nearly all tasks share one of these."""

    timeout: float = math.inf
    """Seconds that an attempt may run."""
    queue_timeout: float = math.inf
    """Seconds that it may wait for the begin of its run."""
    retries: int = 0
    """Attempts after the first one."""
    task_worker: int | None = None
    """The only worker that may run it."""

    @classmethod
    def checked(
        cls,
        timeout: float,
        queue_timeout: float,
        retries: int,
        task_worker: int | None,
        workers: int,
    ) -> Self:
        """Options of a user's, for a pool of so many ``workers``.

        Raises:
          TypeError: if one is not a number of its kind.
          ValueError: if one is out of its range.
        """
        for name, seconds in (("timeout", timeout), ("queue_timeout", queue_timeout)):
            if isinstance(seconds, bool) or not isinstance(seconds, int | float):
                raise TypeError(f"{name} must be a number of seconds: {seconds!r}")
            if not seconds > 0:
                raise ValueError(f"{name} must be > 0 seconds: {seconds!r}")
        if type(retries) is not int:
            raise TypeError(f"retries must be a whole number: {retries!r}")
        if retries < 0:
            raise ValueError(f"retries must be >= 0: {retries}")
        if task_worker is not None:
            if type(task_worker) is not int:
                raise TypeError(f"task_worker must be a whole number: {task_worker!r}")
            if not 0 <= task_worker < workers:
                raise ValueError(f"task_worker must be from 0 to {workers - 1}: {task_worker}")
        return cls(_as_float(timeout), _as_float(queue_timeout), retries, task_worker)


def _as_float(seconds: float) -> float:
    try:
        return float(seconds)
    except OverflowError:  # longer than anything lasts
        return math.inf


PLAIN: Final = Options()
"""What most tasks ask for."""
