"""How often the garbage collector looks, while a program serves and afterwards."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from trioserver._collecting import collecting_seldom

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_a_program_that_has_served_goes_on_as_before() -> None:
    """``run()`` may be only a part of what it does."""
    gc.set_threshold(700, 10, 10)
    gc.unfreeze()
    with collecting_seldom():
        assert gc.get_threshold()[0] > 700
        assert gc.get_freeze_count() > 0

    assert gc.get_threshold()[0] == 700
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("young", [0, 50_000])
def test_what_the_app_has_set_holds(young: int) -> None:
    """Before it serves, or while it does."""
    gc.set_threshold(young)
    with collecting_seldom():
        assert gc.get_threshold()[0] == young
    gc.set_threshold(700)
    with collecting_seldom():
        gc.set_threshold(young)

    assert gc.get_threshold()[0] == young


def test_what_the_app_has_frozen_stays_so() -> None:
    """It may be about to fork."""
    gc.freeze()
    with collecting_seldom():
        pass

    assert gc.get_freeze_count() > 0
