"""When hot calls yield."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trioserver import _pacing
from trioserver._pacing import Pacer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that pacers see."""
    now = [100.0]
    monkeypatch.setattr(_pacing, "perf_counter", lambda: now[0])
    return now


async def test_it_yields_once_in_a_while(clock: list[float]) -> None:
    """The first call yields, those that follow soon after do not, and a later one does again."""
    pacer = Pacer()
    with trio.testing.assert_checkpoints():
        await pacer.checkpoint()
    clock[0] += _pacing.TURN / 2
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(100):
            await pacer.checkpoint()
        assert others == 0
        clock[0] += _pacing.TURN
        with trio.testing.assert_checkpoints():
            await pacer.checkpoint()
        nursery.cancel_scope.cancel()


async def test_every_call_checks_for_cancellation(clock: list[float]) -> None:
    """Also one that does not yield."""
    pacer = Pacer()
    await pacer.give_turn()
    with trio.CancelScope() as scope:
        scope.cancel()
        await pacer.checkpoint()
        pytest.fail("it was not cancelled")

    assert scope.cancelled_caught
