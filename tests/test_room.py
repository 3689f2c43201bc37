"""The numbers that all processes share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from trioserver._processes._room import Look, Room

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def room() -> Iterator[Room]:
    room = Room()
    yield room
    room.close()


def test_what_is_on_its_way_takes_idle_places_first(room: Room) -> None:
    """Only what cannot begin at once will wait."""
    room.open_seat(0)
    room.publish(waiting=1, free=2, held_bytes=10, task_workers=3)
    assert room.look() == Look(1, 1, 10)
    for _ in range(5):
        room.posted(0, 7)
    assert room.look() == Look(1, 4, 45)
    assert room.task_workers == 3


def test_what_arrives_is_counted_once(room: Room) -> None:
    """It changes places at once, whoever looks meanwhile."""
    room.open_seat(1)
    room.publish(0, 0, 0, 1)
    for _ in range(4):
        room.posted(1, 5)
    room.taken(1, 3, 15)
    assert room.look() == Look(1, 4, 20)
    room.publish(3, 0, 15, 1)
    assert room.look() == Look(2, 4, 20)


def test_a_state_is_read_whole_though_its_successor_is_being_written(room: Room) -> None:
    """A manager that is stopped in the middle of it holds up nobody."""
    room.publish(1, 0, 10, 1)
    room.publish(2, 0, 20, 1)
    room._words[0] = 1  # the last thing that it writes
    assert room.look() == Look(1, 1, 10)


def test_what_a_dead_one_had_on_its_way_is_gone(room: Room) -> None:
    """Its successor in the seat begins with nothing, and others' posts stay."""
    for seat in (0, 1):
        room.open_seat(seat)
        room.has_connections(seat, 3)
        room.has_unheard(seat, 2, 200)
        room.accepts(seat, True)
        room.posted(seat, 9)
        room.posted(seat, 9)
    room.taken(0, 1, 9)
    room.close_seat(0)
    room.close_seat(0)
    room.publish(1, 0, 9, 1)
    assert room.look() == Look(1, 3, 27)
    assert (room.connections(0), room.unheard(0)) == (0, (0, 0))
    assert (room.connections(1), room.unheard(1)) == (3, (2, 200))
    room.open_seat(0)
    room.posted(0, 1)
    assert room.look() == Look(1, 4, 28)


def test_fewest_connections_are_of_those_who_accept(room: Room) -> None:
    """0 if nobody does."""
    assert room.fewest_connections() == 0
    for seat, count in enumerate([5, 2, 7]):
        room.open_seat(seat)
        room.has_connections(seat, count)
    assert room.fewest_connections() == 0
    room.accepts(0, True)
    room.accepts(2, True)
    assert room.fewest_connections() == 5


def test_all_see_the_same(room: Room) -> None:
    """Whoever maps the memory by its descriptor."""
    other = Room(os.dup(room.fd))
    room.open_seat(0)
    room.publish(1, 0, 10, 1)
    other.posted(0, 5)
    assert room.look() == other.look() == Look(1, 2, 15)
    other.close()
