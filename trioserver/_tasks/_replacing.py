"""Workers that must go: worn and replaced ones between two jobs, others by force.

Whatever such a worker has not begun is taken back first, so that it costs nothing but time.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from trioserver._tasks._books import Books, Worker
    from trioserver._tasks._engine import Engine
    from trioserver._tasks._placing import Placement
    from trioserver._tasks._policy import Policy
    from trioserver._tasks._watching import Watch

logger = logging.getLogger("trioserver.tasks")


class Replacement:
    """Has workers leave, or kills them; the engine puts fresh ones in their places.

    Args:
      books: Who has what in hand.
      engine: Runs the workers.
      placement: Takes back what has not begun.
      watch: Knows what has ended.
      policy: How much a worker may run and occupy.
      random: Of lives.
    """

    def __init__(
        self,
        books: Books,
        engine: Engine,
        placement: Placement,
        watch: Watch,
        policy: Policy,
        random: Random,
    ) -> None:
        self._books = books
        self._engine = engine
        self._placement = placement
        self._watch = watch
        self._policy = policy
        self._random = random

    def life(self) -> float:
        """How many jobs a new worker may run: not all of them leave at the same time."""
        most = self._policy.max_request
        return math.inf if most == 0 else most - self._random.randint(0, most // 4)

    def look_for_wear(self, worker: Worker) -> None:
        """Have a worker leave that has run enough, or has grown too large."""
        if not worker.ready:
            return
        if not worker.is_worn:
            most = self._policy.max_memory
            worker.is_worn = worker.runs >= worker.life or (
                most > 0 and (self._engine.memory(worker.seat) or 0) > most
            )
            if worker.is_worn:
                self._take_back_all(worker)
        self.let_go(worker)

    def send_off(self, worker: Worker) -> None:
        """Have a worker leave whose number is not its own any more."""
        worker.is_leaving = True
        if worker.ready:
            worker.is_worn = True
            self._take_back_all(worker)
            self.let_go(worker)

    def let_go(self, worker: Worker) -> None:
        """Have a worker that is to leave do so when its hands are empty."""
        if worker.is_worn and worker.ready and not worker.handed:
            self._books.remove_worker(worker)
            self._engine.retire(worker.seat)

    def give_up(self, worker: Worker) -> None:
        """Kill a worker that neither takes up what it is handed nor reports what it has ended."""
        self._take_back_all(worker)
        if all(self._watch.has_ended(worker, job) for job in worker.handed.values()):
            logger.warning("task worker %d does not answer; it is killed", worker.number)
            self._kill(worker)
        # Else it has begun something since it was looked at.

    def kill(self, worker: Worker) -> None:
        """Kill a worker for what it runs; nothing else must begin there meanwhile."""
        if not worker.ready:
            return  # it is on its end already
        self._take_back_all(worker)
        self._kill(worker)

    def _kill(self, worker: Worker) -> None:
        self._books.remove_worker(worker)
        self._engine.kill(worker.seat)

    def _take_back_all(self, worker: Worker) -> None:
        self._placement.take_back_after(worker, 0, pinned=True)
