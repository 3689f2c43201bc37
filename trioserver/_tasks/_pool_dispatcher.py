"""The seam between a pool, which posts jobs and hears of them, and whoever has them run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trioserver._tasks._job import Job
    from trioserver._tasks._patience import Patience
    from trioserver._tasks._statistics import TaskStatistics


class PoolDispatcher(Protocol):
    """A dispatcher as a pool has it: in the same process, or at the other end of a socket."""

    @property
    def workers(self) -> int:
        """How many task workers there are."""

    def load(self) -> tuple[int, int]:
        """How many jobs have not begun, and bytes of the data of those that have not ended.

        The former whoever has posted them, the latter only of what other pools have posted.
        """

    @property
    def patience(self) -> Patience | None:
        """Of who waits for the only job there is, if it may pay to stay awake for that."""

    @property
    def ids(self) -> Iterator[int]:
        """Ids for jobs."""

    def accept(self, job: Job) -> None:
        """Queue ``job``; it ends in exactly one ``job.sink.jobs_ended``."""

    @property
    def accept_all(self) -> Callable[[Sequence[Job]], None] | None:
        """Queues jobs, which have the same options, as `accept` would one after the other.

        None where others post between a look at `load` and a post, so that each needs its own look.
        """

    def cancel(self, job: Job, reason: str) -> None:
        """End ``job`` as cancelled, now or soon."""

    def on_room(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called whenever there may be more room than there was."""

    def on_adopted(self, adopt: Callable[[Job], None]) -> None:
        """Have ``adopt`` called with what a task has posted, if not `Sink.job_posts` accepts it."""

    def want_room(self) -> None:
        """Somebody waits for room, so ``listener`` must be called when there is some."""

    @property
    def has_unheard(self) -> Callable[[int, int], None] | None:
        """Told how many ends, of how many bytes, wait for ``on_finish``, if it wants to know."""

    def statistics(self) -> TaskStatistics:
        """All numbers as they are now."""
