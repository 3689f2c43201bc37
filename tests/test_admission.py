"""The gate in front of the queue: who may post, who waits, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioserver._tasks._admission import Admission
from trioserver._tasks._job import Job

if TYPE_CHECKING:
    from trioserver._tasks._job import Sink


class Gate:
    """A gate with ``room`` for so many, and a list of those who have posted."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.posted: list[int] = []
        self.refused: list[int] = []
        self.unwanted: set[int] = set()
        self.admission = Admission(lambda _job: self.room > 0, self._accept)

    def post_nowait(self, name: int) -> int:
        return self.admission.post_nowait(job(name))

    def _accept(self, job: Job) -> int:
        if job.id in self.unwanted:
            raise trio.ClosedResourceError("its connection is closed")
        assert self.room > 0
        self.room -= 1
        self.posted.append(job.id)
        return job.id

    async def post_in_turn(self, name: int) -> None:
        try:
            assert await self.admission.post_in_turn(job(name)) == name
        except trio.ClosedResourceError:
            self.refused.append(name)

    def make_room(self, room: int = 1) -> None:
        self.room += room
        self.admission.call()


def job(name: int) -> Job:
    """A job that is called so."""
    made = Job(0, b"", cast("Sink", None))
    made.id = name
    return made


async def line_up(nursery: trio.Nursery, gate: Gate, *names: int) -> None:
    for name in names:
        nursery.start_soon(gate.post_in_turn, name)
        await wait_all_tasks_blocked()


def test_there_is_no_waiting_while_there_is_room() -> None:
    """Exactly as many get through as there is room for."""
    gate = Gate(2)
    for name in range(2):
        assert gate.post_nowait(name) == name

    with pytest.raises(trio.WouldBlock):
        gate.post_nowait(2)


async def test_first_come_first_served(autojump_clock: MockClock) -> None:
    """Those in line go in the order of their coming, as many at a time as there is room for."""
    gate = Gate(0)
    async with trio.open_nursery() as posting:
        await line_up(posting, gate, 1, 2, 3, 4)
        assert len(gate.admission.line) == 4
        gate.make_room()
        await wait_all_tasks_blocked()
        assert gate.posted == [1]
        gate.make_room(2)
        await wait_all_tasks_blocked()
        assert gate.posted == [1, 2, 3]
        gate.make_room(5)

    assert gate.posted == [1, 2, 3, 4]
    assert len(gate.admission.line) == 0


async def test_nobody_overtakes_the_line(autojump_clock: MockClock) -> None:
    """Room that has just come is not for those who have just come."""
    gate = Gate(0)
    async with trio.open_nursery() as posting:
        await line_up(posting, gate, 1, 2)
        gate.room = 2
        with pytest.raises(trio.WouldBlock):
            gate.post_nowait(3)
        gate.admission.call()
        assert gate.posted == [1, 2]


async def test_who_leaves_the_line_is_forgotten(autojump_clock: MockClock) -> None:
    """A cancelled one posts nothing, and the next one gets the room."""
    gate = Gate(0)
    async with trio.open_nursery() as posting:
        with trio.CancelScope() as impatient:
            async with trio.open_nursery() as leaving:
                await line_up(leaving, gate, 1)
                await line_up(posting, gate, 2)
                impatient.cancel()
        assert len(gate.admission.line) == 1
        gate.make_room()

    assert gate.posted == [2]


async def test_a_post_counts_from_its_turn_on(autojump_clock: MockClock) -> None:
    """A cancellation that comes after it comes too late for this call: the caller gets his id."""
    gate = Gate(0)
    async with trio.open_nursery() as posting:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inside:
                await line_up(inside, gate, 1)
                gate.make_room()
                scope.cancel()
        await line_up(posting, gate, 2)
        gate.make_room()

    assert gate.posted == [1, 2]


async def test_who_does_not_use_his_turn_passes_it_on(autojump_clock: MockClock) -> None:
    """His post is refused, and the room is the next one's."""
    gate = Gate(0)
    gate.unwanted.add(1)

    async def change_mind() -> None:
        with pytest.raises(trio.ClosedResourceError, match=r"^its connection is closed$"):
            await gate.admission.post_in_turn(job(1))

    async with trio.open_nursery() as posting:
        posting.start_soon(change_mind)
        await wait_all_tasks_blocked()
        await line_up(posting, gate, 2)
        gate.make_room()

    assert gate.posted == [2]


async def test_closing_refuses_everybody(autojump_clock: MockClock) -> None:
    """Those in line, and whoever comes later; who has had his turn has posted."""
    gate = Gate(0)
    async with trio.open_nursery() as posting:
        await line_up(posting, gate, 1, 2, 3)
        gate.make_room()
        gate.admission.close()

    assert gate.posted == [1]
    assert sorted(gate.refused) == [2, 3]
    reason = r"^no more tasks are accepted: the server is stopping$"
    with pytest.raises(trio.ClosedResourceError, match=reason):
        gate.post_nowait(4)
