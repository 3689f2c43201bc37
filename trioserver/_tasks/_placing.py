"""Which job goes to which worker now.

Rules:

1. A worker that waits for nothing is handed a job at once. Only when there is a backlog is more
   handed ahead: about `WINDOW` seconds of work by recent run times, one job where they are long or
   unknown. A worker must not pay a round trip between two tasks, and short tasks must share one.
2. What is handed ahead and not begun can be taken back at any moment (`Engine.revoke`), and is when
   its worker turns out slow and another is free.
3. What is pinned to a worker takes its turn there by its time of posting, and goes nowhere else.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trioserver._tasks._run_times import WINDOW, RunTimes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trioserver._tasks._books import Books, Worker
    from trioserver._tasks._engine import Engine
    from trioserver._tasks._job import Job


class Placement:
    """Hands queued jobs to workers, and takes them back.

    Args:
      books: Where the jobs are.
      engine: Runs them.
      max_window: How many jobs a worker may hold ahead of what it can run.
      clock: The time.
      set_alarm: Asks for a look at the workers at a time.
      on_handed: Called with a worker and what it has got.
    """

    def __init__(
        self,
        books: Books,
        engine: Engine,
        max_window: int,
        clock: Callable[[], float],
        set_alarm: Callable[[float], None],
        on_handed: Callable[[Worker, Sequence[Job]], None],
    ) -> None:
        self._books = books
        self._engine = engine
        self._max_window = max_window
        self._clock = clock
        self._set_alarm = set_alarm
        self._on_handed = on_handed
        self.run_times = RunTimes()
        # It is worth looking for a worker only from this length of the queue on: where none has
        # room, looking again at every post would make posts cost as much as there are workers.
        self._worth_a_look = 1.0

    def job_came(self, job: Job) -> None:
        """``job`` is in the queue, and nothing else has changed."""
        if (
            self._books.queue.line.count >= self._worth_a_look
            or job.options.task_worker is not None
        ):
            self._place()

    def workers_changed(self) -> None:
        """A worker may have more room than it had."""
        self._worth_a_look = 1.0
        self._place()

    def take_back_after(self, worker: Worker, seq: int, *, pinned: bool = False) -> bool:
        """Take back what was handed behind job ``seq``; False if some of it has begun.

        Args:
          worker: In whose hands it is.
          seq: The last one that stays.
          pinned: Whether to take back also what no other worker may run, if that is all there is.
        """
        behind = [job for job in worker.handed.values() if job.seq > seq]
        if not pinned:
            # What is behind one that others may run comes along: it must not overtake that here.
            free = (number for number, job in enumerate(behind) if job.options.task_worker is None)
            behind = behind[next(free, len(behind)) :]
        # The last one first. The worker goes on meanwhile, and skips what is revoked faster than
        # this loop revokes: it would catch up, and run one that came after those taken back.
        taken: list[Job] = []
        for job in reversed(behind):
            if not self._engine.revoke(worker.seat, job.seq):
                break  # and so have those before it
            self._books.take(worker, [job.seq])
            taken.append(job)
        taken.reverse()
        self._books.queue.put_back(taken)
        return len(taken) == len(behind)

    def has_free_beside(self, worker: Worker) -> bool:
        """Whether another one than ``worker`` could begin one more job at once."""
        return any(free is not worker for free in self._free(0))

    # Inside

    def _place(self) -> None:
        books, queue = self._books, self._books.queue
        window = min(self.run_times.window, self._max_window)
        if queue.pinned:
            self._place_all_pinned(window)
        if not queue.shared:
            is_any_ahead = books.handed > books.running
            if is_any_ahead and books.free and any(self._free(window)):
                self._take_back_for_free()
            if not queue.shared:
                return
        ready = sum(worker.ready for worker in books.current)
        while queue.shared:
            chosen = self._choose(window)
            if chosen is None:
                break
            room = chosen.room(window)
            if self.run_times.is_long:
                room = min(room, max(1, chosen.slots - len(chosen.handed)))
            # As much to each, but not less than is worth a message and a worker that it wakes.
            fair = max(queue.shared / ready, min(queue.shared, self.run_times.worth_waking))
            count = max(1, min(math.ceil(fair), room))
            self._hand(chosen, queue.next_ones(chosen.number, count))
        if queue.shared and any(self._free(window)):
            self._set_alarm(self._clock() + WINDOW)

    def _place_all_pinned(self, window: int) -> None:
        for worker in self._books.current:
            if worker.ready and self._books.queue.has_pinned(worker.number):
                self._place_pinned(worker, window)

    def _place_pinned(self, worker: Worker, window: int) -> None:
        queue = self._books.queue
        room = worker.room(window)
        jobs: list[Job] = []
        while len(jobs) < room and queue.has_pinned(worker.number):
            is_free = len(worker.handed) + len(jobs) < worker.slots
            # What came before it and is for any worker may find a better one than this.
            if not is_free and not queue.is_pinned_next(worker.number):
                break
            jobs.append(queue.next_for(worker.number))
        if jobs:
            self._hand(worker, jobs)

    def _choose(self, window: int) -> Worker | None:
        """The worker to hand queued jobs to, None if they had better wait."""
        books, queued = self._books, self._books.queue.shared
        if books.free and self._is_worth_waking(window):
            free = min(self._free(window), key=lambda worker: len(worker.handed), default=None)
            if free is not None:
                return free
        batch = (1 + window) // 2
        worth_a_look = self.run_times.worth_waking if books.free else math.inf
        # What is handed ahead of one that is held up would be taken back, for a free one at once.
        late = self._clock() - WINDOW if any(self._free(window)) else -math.inf
        best = None
        for worker in books.current:
            if not worker.ready or not worker.handed or worker.room(window) < 1:
                continue
            if (worker.settled or worker.heard_at <= late) and not self.run_times.is_long:
                continue
            ahead = len(worker.handed) - worker.slots
            if ahead >= max(batch, 1):
                continue  # it has enough in hand until it reports
            if ahead > 0 and queued < batch:
                worth_a_look = min(worth_a_look, batch)  # let the next message carry many
                continue
            if best is None or (len(worker.handed), worker.heard_at) < (
                len(best.handed),
                best.heard_at,
            ):
                best = worker
        self._worth_a_look = worth_a_look if best is None else 1.0
        return best

    def _free(self, window: int) -> Iterator[Worker]:
        """Those that could begin one more job at once, in the order of `Books.free`."""
        # A worker may be worn, or have yet to skip too many that were revoked.
        return (worker for worker in self._books.free.values() if worker.room(window) > 0)

    def _is_worth_waking(self, window: int) -> bool:
        """Whether queued jobs should go to a free worker rather than behind a busy one's."""
        books = self._books
        if window == 0 or books.running == 0 or books.concurrency > 1:
            return True
        if books.queue.shared >= self.run_times.worth_waking:
            return True
        late = self._clock() - WINDOW
        return all(worker.heard_at <= late for worker in books.current if worker.handed)

    def _hand(self, worker: Worker, jobs: list[Job]) -> None:
        self._books.hand(worker, jobs, self._clock())
        self._engine.start(worker.seat, jobs)
        self._on_handed(worker, jobs)

    def _take_back_for_free(self) -> None:
        """Give free workers what waits behind another's running tasks."""
        now = self._clock()
        for worker in self._books.current:
            if worker.has_ahead:
                if self.run_times.is_long or now >= worker.heard_at + WINDOW:  # as the alarm's
                    self.take_back_after(worker, worker.last_to_run)
                else:
                    self._set_alarm(worker.heard_at + WINDOW)
