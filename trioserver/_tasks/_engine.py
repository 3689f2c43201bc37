"""The seam between the dispatcher, which decides, and whatever runs tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioserver._tasks._job import Job
    from trioserver._tasks._wire import Report


class Engine(Protocol):
    """Runs jobs on numbered workers, each worker its jobs one after the other in the order given.

    The calls are synchronous and never block; what happens comes back as `Events`, later and never
    from inside one of these calls.
    """

    def start(self, worker_id: int, jobs: Sequence[Job]) -> None:
        """Hand over ``jobs``; each has its ``seq``. A worker that is dying loses nothing by it."""

    def revoke(self, worker_id: int, seq: int) -> bool:
        """Take back one job that was handed over.

        Returns:
          True if it has not begun and now never will; False if it has, or may have.
        """

    def kill(self, worker_id: int) -> None:
        """End the worker at once, with all that its task has started; `worker_died` follows."""

    def unsent_reports(self, worker_id: int) -> list[Report]:
        """What the worker has finished but perhaps not sent; the same may come once more."""

    def begun(self, worker_id: int) -> tuple[int, float]:
        """The last job that the worker has begun, 0 for none, and when (`Dispatcher.clock`)."""


class Events(Protocol):
    """What an engine tells; the dispatcher has these methods."""

    def worker_ready(self, worker_id: int) -> None:
        """The worker takes jobs from now on."""

    def reported(self, worker_id: int, reports: Sequence[Report]) -> None:
        """The worker has ended these jobs, in this order."""

    def worker_died(
        self, worker_id: int, exit_code: int | None, begun: tuple[int, float] | None
    ) -> None:
        """The worker is dead, and everything that it had finished was reported before this.

        Args:
          worker_id: Which one; `worker_ready` will tell when it is replaced.
          exit_code: Negative for a signal, None if unknown.
          begun: As `Engine.begun` has it; None if that cannot be trusted.
        """
