"""What payloads cost on their way."""

from __future__ import annotations

import enum
import math
import pickle
import platform
import resource
import sys
from collections import namedtuple

import pytest

from trioserver._tasks._payloads import dump, load
from trioserver._tasks._running_orders import pack_result

MIB = 1024 * 1024


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc has other habits")
def test_memory_of_large_payloads_is_kept() -> None:
    """It is not mapped afresh each time, at a fault for each page."""
    data = bytes(MIB)
    for _ in range(3):
        dump(data, "the data", 2 * MIB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        pickle.loads(dump(data, "the data", 2 * MIB))
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert faults < 100 * MIB / resource.getpagesize() / 4


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


Point = namedtuple("Point", "x y")  # noqa: PYI024  # nobody needs its types

VALUES = [
    *(None, True, False, 0, 1, -1, 2**31, -(2**63), 2**2000, 0.0, -0.0, 1.5, math.inf, 5e-324),
    *("", "text", "\0", "\udcff", "\N{SNOWMAN}" * 1000, "N", "i", b"", b"N", b"i" * 100),
    *((), (1, None), [1.5], {"a": 1}, {1, 2}, Colour.RED, Text("x"), Point(1, 2), bytearray(b"x")),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_as_they_went(value: object) -> None:
    """Be they pickled or not: equal, and of the very same type."""
    came = load(dump(value, "the data", MIB))

    if isinstance(value, float):
        assert math.copysign(1, came) == math.copysign(1, value)
    assert came == value
    assert type(came) is type(value)
    result = load(pack_result(value, MIB))
    assert (type(result), result) == (type(value), value)


def test_what_is_no_number_stays_so() -> None:
    """It is equal to nothing, itself included."""
    assert math.isnan(load(dump(math.nan, "the data", MIB)))


@pytest.mark.parametrize("value", ["x" * 100, 2**800, b"x" * 100, ["x" * 100]])
def test_what_is_too_large_is_refused(value: object) -> None:
    """Whichever way it would travel."""
    with pytest.raises(ValueError, match=r"^the data is 1\d\d bytes pickled, .* max_task_size 99$"):
        dump(value, "the data", 99)
    with pytest.raises(ValueError, match=r"^the task's result is 1\d\d bytes pickled, "):
        pack_result(value, 99)


@pytest.mark.parametrize("body", [b"", b"c" + bytes(50), b"s\xff\xff\xff\x7f", b"[", bytes(8)])
def test_other_bytes_are_left_to_pickle(body: bytes) -> None:
    """Marshal would make code of some, and trust the sizes in others."""
    with pytest.raises((pickle.UnpicklingError, EOFError, IndexError, KeyError)):
        load(body)


def test_texts_are_not_interned() -> None:
    """They would be in memory for good."""
    text = sys.intern("a text of this test that was interned here")
    came = load(dump(text, "the data", MIB))

    assert came == text
    assert came is not text
