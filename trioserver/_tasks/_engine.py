"""The seam between the dispatcher, which decides, and whatever runs tasks.

Users know a worker by its *number*. While one is replaced by a fresh one several have the same
number, so here each has a *seat*, which no other one ever has: its process may die and be followed
by another one there, and a reload puts a worker with a seat of its own in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioserver._tasks._job import Job
    from trioserver._tasks._statistics import TaskStatistics
    from trioserver._tasks._wire import Answer, Report


class Engine(Protocol):
    """Runs jobs on workers, each worker its jobs in the order given.

    The calls are synchronous and never block; what happens comes back as `Events`, later and never
    from inside one of these calls.
    """

    def start(self, seat: int, jobs: Sequence[Job]) -> None:
        """Hand over ``jobs``; each has its ``seq``. A worker that is dying loses nothing by it."""

    def revoke(self, seat: int, seq: int) -> bool:
        """Take back one job that was handed over.

        Returns:
          True if it has not begun and now never will; False if it has, or may have.
        """

    def cancel(self, seat: int, seq: int) -> None:
        """Ask one job that has begun to end itself, where it can; it may not."""

    def kill(self, seat: int) -> None:
        """End the worker at once, with all that its task has started; `worker_died` follows."""

    def retire(self, seat: int) -> None:
        """Have a worker with nothing in hand leave; `worker_died` follows."""

    def answer_post(self, seat: int, seq: int, answer: Answer, task_id: int, reason: str) -> None:
        """Tell a job what became of its post (`Sink.job_posts`)."""

    def unsent_reports(self, seat: int) -> list[Report]:
        """What the worker has finished but perhaps not sent; the same may come once more."""

    def begun(self, seat: int) -> tuple[int, float] | None:
        """The last job that the worker has begun, 0 for none, and when (`Dispatcher.clock`).

        None if its flight recorder makes no sense: any job that it has in hand may have begun.
        """

    def begun_at(self, seat: int, seq: int) -> float:
        """When the worker has begun a job; infinite if it has ended it, and not reported yet."""

    def heard_at(self, seat: int) -> float:
        """When anything came from the worker, be it a part of a report; 0 if nothing has."""

    def pid(self, seat: int) -> int | None:
        """The process of a worker, None while there is none."""

    def memory(self, seat: int) -> int | None:
        """Bytes that the worker's process occupies, None if that is unknown."""


class Events(Protocol):
    """What an engine tells; the dispatcher has these methods."""

    def worker_seated(self, seat: int, number: int) -> None:
        """A new worker has this seat, and from now on the number; `worker_ready` follows.

        Whoever had the number before gets nothing more, and must be retired when its hands are
        empty, if it is alive; what it has not begun goes elsewhere. If it is not, its seat is
        empty for good.

        Args:
          seat: One that nobody has had.
          number: One that there is, or the next one.
        """

    def worker_dismissed(self, number: int) -> None:
        """The highest number is gone; who had it leaves as for another one (`worker_seated`)."""

    def worker_ready(self, seat: int) -> None:
        """The worker takes jobs from now on."""

    def reported(self, seat: int, reports: Sequence[Report]) -> None:
        """The worker has ended these jobs, in this order."""

    def progressed(self, seat: int, values: Sequence[tuple[int, bytes]]) -> None:
        """Running jobs have told values: which job, and its newest one."""

    def posted(self, seat: int, seq: int, payload: bytes) -> None:
        """A running job posts a task; `Engine.answer_post` must follow."""

    def statistics(self) -> TaskStatistics:
        """What runs where, and all other numbers as they are now."""

    def worker_died(
        self, seat: int, exit_code: int | None, begun: tuple[int, float] | None
    ) -> None:
        """The worker is dead, and everything that it had finished was reported before this.

        Args:
          seat: Which one; `worker_ready` will tell when it is replaced, if its number is its own.
          exit_code: Negative for a signal, None if unknown.
          begun: As `Engine.begun` has it; None if that cannot be trusted.
        """
