"""A worker goes on while it is looked after; that may not turn the order of its jobs around."""

from __future__ import annotations

from random import Random

import pytest
from model_engine import ModelEngine

from trioserver._tasks._run_times import WINDOW


class LivelyEngine(ModelEngine):
    """Its worker runs orders, or skips revoked ones, between one mark and the next."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.random = random
        self.is_lively = False

    def revoke(self, worker_id: int, seq: int) -> bool:
        worker = self.workers[worker_id]
        # To skip takes less time than to run does: it may well catch up with the marks.
        steps = self.random.choice((0, 1, 2, 50)) if self.is_lively else 0
        while steps and worker.orders:
            if worker.running:
                self.finish(worker_id)
                steps = min(steps, 2)
            self.begin(worker_id)
            steps -= 1
        return super().revoke(worker_id, seq)


@pytest.mark.parametrize("seed", range(50))
def test_what_comes_back_is_what_lies_behind_the_rest(seed: int) -> None:
    """However far the worker gets meanwhile, one worker begins all in the order of their posts."""
    engine = LivelyEngine(Random(seed))
    engine.learn(WINDOW / 50)
    posted = engine.post(300)
    engine.begin(0)
    assert len(engine.given(0)) > 20

    engine.is_lively = True
    engine.pass_time(2 * WINDOW)
    engine.is_lively = False

    while len(engine.ended) < len(posted):
        if engine.workers[0].running:
            engine.finish(0)
        engine.send(0)
        if engine.workers[0].orders:
            engine.begin(0)
    assert engine.ran == posted
    assert engine.ended == posted


def test_reports_that_are_on_their_way_come_before_those_on_the_page() -> None:
    """A look finds the latter first; what ran first is heard first."""
    engine = ModelEngine()
    engine.learn(WINDOW / 50)
    posted = engine.post(200)
    worker = engine.workers[0]
    for _ in range(3):
        engine.begin(0)
        engine.finish(0)
    sent, worker.unsent = worker.unsent, []
    for _ in range(3):
        engine.begin(0)
        engine.finish(0)
    engine.begin(0)

    engine.pass_time(2 * WINDOW)
    engine.dispatcher.reported(0, sent)
    engine.pass_time(2 * WINDOW)

    assert engine.ended == posted[:6]
