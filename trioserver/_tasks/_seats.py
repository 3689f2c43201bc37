"""Who has which number: workers that come, and those that leave for them or for nobody.

A worker keeps its number through the deaths of its processes. In a reload a fresh worker takes it,
on a seat of its own; the old one ends what it has begun, for as long as that takes, and leaves.
Meanwhile a number may be that of one worker that takes jobs, and of any number of old ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioserver._tasks._books import Worker
from trioserver._tasks._wire import Status

if TYPE_CHECKING:
    from trioserver._tasks._attempts import Attempts
    from trioserver._tasks._books import Books
    from trioserver._tasks._replacing import Replacement


class Seats:
    """Changes which workers there are.

    Args:
      books: Who has what in hand.
      attempts: Ends jobs that nobody may run any more.
      replacement: Sends workers off.
    """

    def __init__(self, books: Books, attempts: Attempts, replacement: Replacement) -> None:
        self._books = books
        self._attempts = attempts
        self._replacement = replacement

    def take(self, seat: int, number: int) -> None:
        """A new worker has ``seat``, and takes ``number`` from whoever has it."""
        books = self._books
        fresh = books.workers[seat] = Worker(seat, number, books.concurrency)
        if number == len(books.current):
            books.queue.add_number()
            books.current.append(fresh)
            return
        old = books.current[number]
        books.current[number] = fresh
        fresh.runs_before, old.runs_before = old.runs_before, 0
        self._send_off(old)

    def dismiss(self, number: int) -> None:
        """The highest number is gone, and its worker leaves; so ends what only that may run."""
        books = self._books
        assert number == len(books.current) - 1, "numbers are without a gap"
        worker = books.current.pop()
        self._send_off(worker)
        books.queue.remove_number()

    def leave(self, worker: Worker) -> None:
        """A worker that was leaving is gone."""
        books = self._books
        del books.workers[worker.seat]
        if worker.number < len(books.current):
            books.current[worker.number].runs_before += worker.runs_before + worker.runs

    def end_stranded(self) -> None:
        """End the jobs of numbers that are gone."""
        queue = self._books.queue
        while queue.stranded:
            job = queue.stranded[0]
            reason = f"there is no task worker {job.options.task_worker} any more"
            queue.drop(job)
            self._attempts.end_unrun(job, Status.CANCELLED, reason.encode())

    def _send_off(self, worker: Worker) -> None:
        if worker.is_dead:
            worker.is_leaving = True
            self.leave(worker)
        else:
            self._replacement.send_off(worker)
