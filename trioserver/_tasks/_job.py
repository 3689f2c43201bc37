"""A task on its way through pool and dispatcher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from trioserver._tasks._options import PLAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioserver._tasks._finishing import OnFinish
    from trioserver._tasks._options import Options
    from trioserver._tasks._wire import Answer

QUEUED: Final = -1
"""The ``seq`` of a job that waits for a worker."""
DELAYED: Final = -2
"""The ``seq`` of a job that waits for the time of its next attempt."""


class Sink(Protocol):
    """Whoever posted a job, and hears of it; none of this may raise."""

    is_gone: bool
    """Whether it is dead: then its jobs end as abandoned, however they end."""

    def jobs_ended(self, jobs: Sequence[Job]) -> None:
        """Take ``jobs``, whose statuses, bodies and times are final, in the order of their ends."""

    def job_progressed(self, job: Job, body: bytes) -> None:
        """``job`` runs and has told a value, pickled in ``body``."""

    def job_posts(self, job: Job, payload: bytes) -> tuple[Answer, int, str]:
        """``job`` posts a task: whether it is accepted, its id, and why it is not."""


class Caller(Protocol):
    """Whoever waits for a job by itself, and not by way of ``on_finish``."""

    def some_ended(self, count: int) -> None:
        """So many of its jobs have ended."""


class Owner(Protocol):
    """Whoever posted a job that ends with it: a connection."""

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""


class Job:
    """The state of one task; slots and no attrs, because a million of them may be queued."""

    __slots__ = (
        "__weakref__",
        "attempt",
        "begun_at",
        "body",
        "caller",
        "id",
        "kind",
        "on_finish",
        "options",
        "payload",
        "queued_at",
        "ran",
        "seq",
        "sink",
        "size",
        "status",
        "stream",
        "verdict",
        "worker_id",
    )

    def __init__(self, kind: int, payload: bytes, sink: Sink, options: Options = PLAIN) -> None:
        self.kind = kind
        self.payload = payload
        # Bytes of that, which is asked for at every step of its way.
        self.size = len(payload)
        self.sink = sink
        self.options = options
        # Given when it is accepted.
        self.id = -1
        # When this attempt of it was queued.
        self.queued_at = 0.0
        self.attempt = 1
        # Where it was handed to, and as which of that worker's jobs.
        self.worker_id: int | None = None
        self.seq = QUEUED
        # Set when it must end though it runs: the status and body that its worker's death, or its
        # own cancellation there, then mean.
        self.verdict: tuple[int, bytes] | None = None
        # How it ended, None until then.
        self.status: int | None = None
        self.body = b""
        self.begun_at = 0.0
        self.ran = 0.0
        # The pool's business: who owns it, and who hears of it.
        self.stream: Owner | None = None
        self.caller: Caller | None = None
        self.on_finish: OnFinish | None = None
