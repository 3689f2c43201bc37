"""One task worker process, handed orders and heard directly, with no dispatcher in between."""

from __future__ import annotations

import pickle
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from serving import PATIENCE
from workers import until

from trioserver._tasks._job import Job
from trioserver._tasks._payloads import load
from trioserver._tasks._wire import Answer, Failure, Kind, Status
from trioserver._tasks._worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from trioserver._tasks._wire import Report


class OneWorker:
    """A worker, and everything that it has said, in its order."""

    def __init__(self, app: str, max_task_size: int, task_concurrency: int) -> None:
        self.ready = trio.Event()
        self.heard: list[tuple[str, int]] = []
        """What kind of thing, and of which seq."""
        self.reports: dict[int, Report] = {}
        self.posted: list[object] = []
        self.values: dict[int, list[object]] = {}
        self.on_posted: Callable[[int, bytes], None] = self.accept
        self.process = WorkerProcess(
            3,
            app,
            on_boot=lambda: None,
            on_ready=self.ready.set,
            on_reports=self._on_reports,
            max_task_size=max_task_size,
            task_concurrency=task_concurrency,
            on_posted=self._on_posted,
            on_progress=self._on_progress,
        )
        self._last_seq = 0

    # What it says

    def _on_reports(self, reports: Sequence[Report]) -> None:
        for report in reports:
            self.heard.append(("end", report[0]))
            self.reports[report[0]] = report

    def _on_posted(self, seq: int, data: bytes) -> None:
        self.heard.append(("post", seq))
        self.posted.append(pickle.loads(data))
        self.on_posted(seq, data)

    def _on_progress(self, values: Sequence[tuple[int, bytes]]) -> None:
        for seq, body in values:
            self.heard.append(("progress", seq))
            self.values.setdefault(seq, []).append(pickle.loads(body))

    # What it is told

    def accept(self, seq: int, _data: bytes) -> None:
        """Accept a post: the ids count from 1001."""
        self.process.answer_post(seq, 1000 + len(self.posted), Answer.ACCEPTED)

    def hand(self, *jobs: tuple[object, ...], kind: Kind = Kind.TASK, skip: int = 0) -> list[int]:
        """Hand over jobs in one message: their seqs, after a gap of ``skip``."""
        made = []
        for data in jobs:
            self._last_seq += 1 + skip
            job = Job(int(kind), pickle.dumps(data), None)  # type: ignore[arg-type]  # nobody hears
            job.id, job.seq = 100 + self._last_seq, self._last_seq
            made.append(job)
        self.process.start(made)
        return [job.seq for job in made]

    def call(self, function: Callable[..., object], *args: object) -> int:
        """Hand over one call: its seq."""
        (seq,) = self.hand((function, args), kind=Kind.CALL)
        return seq

    def begin(self, function: Callable[..., object], *args: object) -> int:
        """Hand over one task: its seq."""
        (seq,) = self.hand((function, *args))
        return seq

    # What came of it

    async def ended(self, *seqs: int) -> None:
        """Until those are reported."""
        await until(lambda: all(seq in self.reports for seq in seqs), f"{seqs} have ended")

    async def status(self, seq: int) -> Status:
        await self.ended(seq)
        return Status(self.reports[seq][1])

    async def result(self, seq: int) -> Any:  # as its task returns it
        """What the task returned."""
        await self.ended(seq)
        _, status, _, _, body = self.reports[seq]
        assert status == Status.OK, Failure.unpack(body) if status == Status.FAILED else status
        return load(body)

    async def failure(self, seq: int) -> Failure:
        """How the task raised."""
        await self.ended(seq)
        _, status, _, _, body = self.reports[seq]
        assert status == Status.FAILED
        return Failure.unpack(body)

    async def run(self, function: Callable[..., object], *args: object) -> Any:  # the same
        return await self.result(self.begin(function, *args))


@asynccontextmanager
async def open_worker(
    app: str, max_task_size: int = 1 << 20, task_concurrency: int = 100
) -> AsyncIterator[OneWorker]:
    """A worker that is ready; it is told to leave in the end, and must have been well."""
    worker = OneWorker(app, max_task_size, task_concurrency)
    try:
        with trio.fail_after(2 * PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(worker.process.live)
                await worker.ready.wait()
                yield worker
                worker.process.stop()
    finally:
        worker.process.close()
    assert worker.process.exit_code in {0, None}
