"""Large bodies in shared memory: where they lie, and when their places are used again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioserver._tasks._arena import LARGE, REGION_SIZE, Arena, Space, WorkerArena, size_at
from trioserver._tasks._wire import ELSEWHERE, WireError

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="large bodies go by the socket there"
)


@pytest.fixture
def arena(page_fd: int) -> Iterator[Arena]:
    """The dispatcher's hand."""
    arena = Arena(page_fd)
    yield arena
    arena.close()


@pytest.fixture
def worker(page_fd: int) -> WorkerArena:
    """The worker's hand."""
    return WorkerArena(page_fd)


def body(number: int, size: int = LARGE) -> bytes:
    return bytes([number]) * size


def placed(where: int | None) -> int:
    assert where is not None
    return where


@given(st.lists(st.one_of(st.integers(1, 400), st.floats(0, 0.99))))
def test_no_two_parts_overlap_and_the_lowest_is_taken(steps: list[float]) -> None:
    """Whatever is taken and given back; a part is refused only where none is free."""
    space = Space(1024)
    taken: dict[int, int] = {}
    for step in steps:
        if isinstance(step, float):
            if taken:
                start = sorted(taken)[int(step * len(taken))]
                space.give_back(start)
                del taken[start]
            continue
        ends = [0, *(-(-(at + size) // 64) * 64 for at, size in taken.items())]
        fits = [
            end
            for end in sorted(ends)
            if end + step <= 1024
            and all(end + step <= at or at + size <= end for at, size in taken.items())
        ]
        start = space.take(step)
        assert start == (fits[0] if fits else None)
        if start is not None:
            taken[start] = step


def test_an_order_comes_as_it_was(arena: Arena, worker: WorkerArena) -> None:
    """And stays until it is reported, though others come and go."""
    places = [placed(arena.place(seq, body(seq))) for seq in range(1, 6)]
    arena.reported([1, 3])
    again = placed(arena.place(6, body(6, 2 * LARGE))), placed(arena.place(7, body(7)))

    assert again[1] == places[0]
    for seq, where in [(2, places[1]), (4, places[3]), (5, places[4]), (7, again[1])]:
        assert where >= ELSEWHERE
        assert size_at(where) == LARGE
        assert worker.order_at(where) == body(seq)
    assert worker.order_at(again[0]) == body(6, 2 * LARGE)


def test_a_report_comes_as_it_was(arena: Arena, worker: WorkerArena) -> None:
    """What was read is a copy: the worker uses the place again, and no other."""
    places = [placed(worker.place(body(seq))) for seq in (1, 2)]
    first = arena.report_at(places[0])
    arena.has_read(1)

    assert placed(worker.place(body(3))) == places[0]
    assert first == body(1)
    assert arena.report_at(places[0]) == body(3)
    assert arena.report_at(places[1]) == body(2)


def test_what_has_no_room_is_refused(arena: Arena, worker: WorkerArena) -> None:
    """On either side; and has room when it was made."""
    half = body(1, REGION_SIZE // 2)
    orders = [arena.place(seq, half) for seq in range(3)]
    assert orders[2] is None
    assert arena.place(3, body(1, REGION_SIZE + 1)) is None
    arena.reported([0])
    assert arena.place(4, half) == orders[0]

    reports = [worker.place(half) for _ in range(3)]
    assert reports[2] is None
    assert worker.place(body(1, REGION_SIZE + 1)) is None
    arena.has_read(1)
    assert worker.place(half) == reports[0]


def test_seqs_that_have_no_place_are_nothing(arena: Arena) -> None:
    """Most tasks are small, and some are reported twice."""
    first = arena.place(1, body(1))
    arena.place(2, body(2))
    arena.reported([7, 1, 1])

    assert arena.place(3, body(3)) == first


def test_a_count_that_a_task_made_up_frees_nothing_twice(arena: Arena, worker: WorkerArena) -> None:
    """Reports that were never made are read, as far as the dispatcher knows."""
    arena.has_read(1000)
    places = [worker.place(body(number)) for number in range(4)]

    assert len(set(places)) <= 4
    assert None not in places


@pytest.mark.parametrize(
    ("start", "size"), [(REGION_SIZE, 1), (0, REGION_SIZE + 1), (2**31 - 1, 0)]
)
def test_a_place_outside_is_not_looked_at(arena: Arena, start: int, size: int) -> None:
    with pytest.raises(WireError):
        arena.report_at(ELSEWHERE | start << 32 | size)


def test_the_worker_cannot_write_where_orders_are(arena: Arena, worker: WorkerArena) -> None:
    """Neither those, nor the count that lies before them."""
    where = placed(arena.place(1, body(1)))

    with pytest.raises(TypeError, match="read-only"):
        worker.order_at(where)[0] = 7


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="Linux alone says and does it")
def test_what_is_emptied_takes_no_memory(page_fd: int, arena: Arena, worker: WorkerArena) -> None:
    """And can be used as before."""
    before = os.fstat(page_fd).st_blocks
    assert arena.place(1, body(1, REGION_SIZE)) is not None
    arena.reported([1])
    arena.report_at(placed(worker.place(body(2, REGION_SIZE))))
    arena.has_read(1)
    full = os.fstat(page_fd).st_blocks
    arena.empty()
    after = os.fstat(page_fd).st_blocks

    assert (full - before) * 512 >= 2 * REGION_SIZE
    assert (after - before) * 512 <= 64 * 1024
    assert worker.order_at(placed(arena.place(2, body(3)))) == body(3)
    assert arena.report_at(placed(worker.place(body(4)))) == body(4)
