"""A task on its way through pool and dispatcher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from trioserver._tasks._finishing import OnFinish


class Sink(Protocol):
    """Whoever hears how a job ended: a pool for its tasks."""

    def job_ended(self, job: Job) -> None:
        """Take ``job``, whose status, body and times are final; must not raise."""


class Caller(Protocol):
    """Whoever waits for a job by itself, and not by way of ``on_finish``."""

    def one_ended(self) -> None:
        """One of its jobs has ended."""


class Owner(Protocol):
    """Whoever posted a job that ends with it: a connection."""

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""


class Job:
    """The state of one task; slots and no attrs, because a million of them may be queued."""

    __slots__ = (
        "attempt",
        "begun_at",
        "body",
        "caller",
        "cancel_reason",
        "id",
        "kind",
        "on_finish",
        "payload",
        "posted_at",
        "ran",
        "seq",
        "sink",
        "status",
        "stream",
        "worker_id",
    )

    def __init__(self, kind: int, payload: bytes, sink: Sink) -> None:
        self.kind = kind
        self.payload = payload
        self.sink = sink
        # Given when it is accepted.
        self.id = -1
        self.posted_at = 0.0
        self.attempt = 1
        # Where it was handed to, and as which of that worker's jobs; None and -1 while queued.
        self.worker_id: int | None = None
        self.seq = -1
        # Set when someone wants it ended while it runs; the worker's death then means cancelled.
        self.cancel_reason: str | None = None
        # How it ended, None until then.
        self.status: int | None = None
        self.body = b""
        self.begun_at = 0.0
        self.ran = 0.0
        # The pool's business: who owns it, and who hears of it.
        self.stream: Owner | None = None
        self.caller: Caller | None = None
        self.on_finish: OnFinish | None = None
