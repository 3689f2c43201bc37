"""What can be asked of tasks, as users see it: the same for a server and for a pool without one."""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from trioserver._tasks._pool import Pool
    from trioserver._tasks._values import Completion

ResultT = TypeVar("ResultT")
ArgsT = TypeVarTuple("ArgsT")


class TaskCalls(abc.ABC):
    """Posting tasks and ending them.

    Posting raises `trio.ClosedResourceError` once the server, or the pool, has stopped waiting for
    tasks. The options of a post are:

    - ``timeout``: seconds that the task may run, from the begin of its run; `Settings.task_timeout`
      unless given. Then its worker is killed, whatever it is doing, with the processes that the
      task has started; a coroutine function is cancelled first. The task ends as `TaskTimeout`.
    - ``queue_timeout``: seconds that it may wait in the queue; then it ends as `TaskTimeout` unrun.
    - ``retries``: further attempts after one that raised, timed out or lost its worker, 0.1 s later
      at first, then twice as long each time, up to 30 s, and up to a quarter more by chance. There
      is one completion, after the last attempt. Without retries nothing runs twice.
    - ``task_worker``: the only worker that may run it, from 0 to ``task_worker_num`` - 1.

    Each raises `TypeError` or `ValueError` where it is not such a number.
    """

    @property
    @abc.abstractmethod
    def _pool(self) -> Pool:
        """The pool that does it."""

    async def task(
        self,
        data: object,
        *,
        timeout: float | None = None,
        queue_timeout: float = math.inf,
        retries: int = 0,
        task_worker: int | None = None,
        on_finish: Callable[[Completion], Awaitable[object]] | None = None,
    ) -> int:
        """Post ``data`` to ``on_task`` in a task worker process (Swoole's ``task``).

        Returns at once unless the queue is full (`Settings.max_queued_tasks`,
        `Settings.max_queued_bytes`), or as many completions wait for ``on_finish``; then it waits,
        so a fast client cannot outrun the task workers. Called inside ``on_finish``, it waits for
        the queue alone, so it cannot wait for itself. How the task ends reaches ``on_finish``
        exactly once; the task outlives the connection that asked for it (see `Connection.task` for
        one that does not).

        Checks for cancellation at every call, but yields to other Trio tasks only about every
        millisecond. Cancelling the call leaves nothing queued; cancelling later has no effect on
        the task.

        Args:
          data: Anything that can be pickled; it is pickled before anything else happens.
          timeout: Seconds that it may run; see `TaskCalls` for this and the next three.
          queue_timeout: Seconds that it may wait for its run.
          retries: Further attempts.
          task_worker: The only worker that may run it.
          on_finish: Hears of this task in place of the app's ``on_finish``.

        Returns:
          The id that the completion will carry, from 0.

        Raises:
          TypeError: if ``data`` cannot be pickled, or ``on_finish`` not called.
          ValueError: if ``data`` is larger than `Settings.max_task_size`, pickled.
        """
        pool = self._pool
        options = pool.options(timeout, queue_timeout, retries, task_worker)
        return await pool.task(data, options, stream=None, on_finish=on_finish)

    def task_nowait(
        self,
        data: object,
        *,
        timeout: float | None = None,
        queue_timeout: float = math.inf,
        retries: int = 0,
        task_worker: int | None = None,
        on_finish: Callable[[Completion], Awaitable[object]] | None = None,
    ) -> int:
        """Post as `task` does, if that needs no waiting.

        Raises:
          trio.WouldBlock: if it does.
          TypeError, ValueError: as `task`.
        """
        pool = self._pool
        options = pool.options(timeout, queue_timeout, retries, task_worker)
        return pool.task_nowait(data, options, stream=None, on_finish=on_finish)

    async def run_task(
        self,
        data: object,
        *,
        timeout: float | None = None,
        queue_timeout: float = math.inf,
        retries: int = 0,
        task_worker: int | None = None,
    ) -> Any:
        """Post ``data`` and wait for the result (Swoole's ``taskwait``).

        Cancelling it kills the task, with the processes that the task has started, and waits until
        they are gone. The outcome comes here, and not to ``on_finish``.

        Raises:
          TaskFailed: if ``on_task`` raised.
          TaskTimeout: if it ran, or waited in the queue, for longer than it may.
          TaskWorkerCrashed: if the worker died while it ran this task.
          TaskCancelled: if `cancel` or the end of the server ended it.
          TypeError, ValueError: as `task`.
          RuntimeError: inside a task, which must not wait for another one.
        """
        pool = self._pool
        options = pool.options(timeout, queue_timeout, retries, task_worker)
        return await pool.run_task(data, options)

    async def run_tasks(
        self,
        items: Iterable[object],
        *,
        timeout: float | None = None,
        queue_timeout: float = math.inf,
        retries: int = 0,
        task_worker: int | None = None,
    ) -> list[Completion]:
        """Post each of ``items`` and wait for all (Swoole's ``taskWaitMulti``, without its cap).

        The options are those of each task. Cancelling it, or an item that cannot be pickled, ends
        all of them as `run_task` says.

        Returns:
          How each ended, in the order of ``items``; a completion's ``result`` raises its error.
        """
        pool = self._pool
        options = pool.options(timeout, queue_timeout, retries, task_worker)
        return await pool.run_tasks(items, options)

    async def run_sync(self, fn: Callable[[*ArgsT], ResultT], *args: *ArgsT) -> ResultT:
        """Call ``fn(*args)`` in a task worker, as `trio.to_thread.run_sync` does in a thread.

        ``fn`` must be importable by name there; the arguments and the result are pickled.

        Cancellation and errors are those of `run_task`; a limit of time is a cancel scope around
        the call, or `Settings.task_timeout`.
        """
        return await self._pool.run_sync(fn, args)

    def cancel(self, task_id: int) -> bool:
        """End a task: at once if it is queued, by killing its worker if it runs.

        Where ``on_task`` is a coroutine function it is cancelled first. The completion says
        `TaskCancelled`, unless the task ends by itself in that very moment.

        Returns:
          False if no such task is queued or running.
        """
        return self._pool.cancel(task_id)
