"""What can be asked of a whole server from outside: by a signal, by the control socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from trioserver._statistics import ServerStatistics


class Controls(Protocol):
    """A server as those see it who operate it; one process and several look the same."""

    def statistics(self) -> ServerStatistics:
        """All processes, connections and tasks, as they are now."""

    def reload(self, *, only_task_workers: bool = False) -> None:
        """Ask for a reload; see `_reloads`.

        Raises:
          RuntimeError: if it cannot be: the server is stopping.
        """

    def shutdown(self) -> None:
        """Ask for a graceful stop; it may be asked for again."""

    def cancel(self, task_id: int) -> bool:
        """End a task, whoever has posted it; False if no such task is queued or running."""

    async def scale(self, task_worker_num: int) -> None:
        """Have so many task workers; returns when they are ready, or have been told to leave.

        Raises:
          ValueError: if it cannot be that number.
          RuntimeError: if the server is stopping, or has no task workers.
          AppError: if a new one cannot start.
        """

    async def stack(self, task_id: int) -> str:
        """The Python stack of a running task, as text; takes up to a second.

        Raises:
          KeyError: if no such task runs.
          RuntimeError: if its process does not answer; the message says in which state that is.
        """
