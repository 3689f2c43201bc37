"""Framing: what holds for all of them, and raw, terminated and fixed frames in detail."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    Case,
    Outcome,
    check_decodes,
    chunked,
    cuts,
    eof_bytes,
    fetch,
    framed_cases,
    free_framings,
    incomplete,
    raw_cases,
    run,
    terminators,
)

from trioserver._errors import FrameTooLargeError
from trioserver._net._framing import (
    EofFraming,
    FixedFraming,
    Framing,
    LengthFraming,
    RawFraming,
)

SPECS: list[Framing] = [
    RawFraming(),
    EofFraming(b"\r\n"),
    FixedFraming(3),
    LengthFraming("n", length_offset=2, body_offset=0, keep_header=True),
]
each_spec = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
places = st.lists(st.integers(0, 1000), max_size=12)


@given(case=framed_cases, places=places)
@settings(deadline=None)
def test_round_trip(case: Case, places: list[int]) -> None:
    """Encoded frames come back as they were, however the stream is cut."""
    framing, frames = case
    data = b"".join(map(framing.encode, frames))

    assert run(framing, chunked(data, places)) == Outcome(frames)


@given(case=raw_cases, places=places)
@settings(deadline=None)
def test_round_trip_raw(case: Case, places: list[int]) -> None:
    """Without framing the chunks are the frames."""
    framing, frames = case
    chunks = chunked(b"".join(map(framing.encode, frames)), places)

    assert run(framing, chunks) == Outcome(chunks)


@given(framing=free_framings, places=places, max_length=st.integers(60, 70))
@settings(deadline=None)
def test_frames_before_the_limit_come_first(
    framing: Framing, places: list[int], max_length: int
) -> None:
    """A frame of the limit's size passes, one byte more fails, and frames before it come out."""
    exact, over = b"x" * max_length, b"x" * (max_length + 1)
    data = b"".join(map(framing.encode, [exact, b"", exact, over, exact]))
    outcome = run(framing, chunked(data, places), max_length)

    assert outcome.frames == [exact, b"", exact]
    assert isinstance(outcome.error, FrameTooLargeError)
    assert outcome.error.max_length == max_length


@each_spec
def test_specs_are_values(spec: Framing) -> None:
    """Specs are equal and hashed by what they say, survive pickling, and cannot be changed."""
    again = pickle.loads(pickle.dumps(spec))

    assert again == spec
    assert hash(again) == hash(spec)
    assert [other for other in SPECS if other == spec] == [spec]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        spec.size = 4  # type: ignore[attr-defined]  # that it is refused is the point


@each_spec
def test_specs_are_framings(spec: Framing) -> None:
    """The specs are what a user's own framing has to be; a class without the methods is not."""
    assert isinstance(spec, Framing)
    assert not isinstance(b"\r\n", Framing)


@each_spec
@pytest.mark.parametrize(
    ("max_length", "kind", "message"),
    [
        (0, ValueError, r"^max_length must be >= 1: 0$"),
        (-1, ValueError, r"^max_length must be >= 1: -1$"),
        (1.5, TypeError, r"^max_length must be an int not 1\.5$"),
        (True, TypeError, r"^max_length must be an int not True$"),
    ],
)
def test_max_length_is_checked(
    spec: Framing, max_length: int, kind: type[Exception], message: str
) -> None:
    """A limit is a whole number of at least one byte."""
    with pytest.raises(kind, match=message):
        spec.decoder(max_length)


@each_spec
def test_nothing_received(spec: Framing) -> None:
    """Data that is empty is no frame, and an end before any data is a clean one."""
    decoder = spec.decoder(100)
    decoder.receive_data(b"")

    assert decoder.next_frame() is None
    decoder.receive_eof()


def test_imports_no_trio() -> None:
    """A task worker that imports a framing does not pay for trio."""
    code = "import sys, trioserver._net._framing; print('trio' in sys.modules)"
    root = Path(__file__).parents[1]
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )

    assert answer.stdout == "False\n"


def test_raw_pieces_have_at_most_max_length() -> None:
    """What is longer than the limit comes in pieces; chunks are not joined."""
    assert run(RawFraming(), [b"abc", b"", b"abcdefg", b"h"], 3) == Outcome(
        [b"abc", b"abc", b"def", b"g", b"h"]
    )


def test_raw_keeps_chunks_apart_until_fetched() -> None:
    """Chunks that came before the first fetch are still one frame each, and may end anywhere."""
    decoder = RawFraming().decoder(100)
    decoder.receive_data(b"a")
    decoder.receive_data(b"b")

    assert fetch(decoder) == Outcome([b"a", b"b"])
    decoder.receive_eof()


@pytest.mark.parametrize(
    ("terminator", "data", "frames"),
    [
        (b"\n", b"a\nbc\n", [b"a", b"bc"]),
        (b"\n", b"\n\n\na\n", [b"", b"", b"", b"a"]),
        (b"\r\n", b"a\rb\nc\n\r\n\r\n", [b"a\rb\nc\n", b""]),
        (b"\r\n\r\n", b"a\r\n\rb\r\n\r\n\r\n\r\n", [b"a\r\n\rb", b""]),
        (b"\n\n", b"a\n\n\n\n\n\n", [b"a", b"", b""]),
        (b"aab", b"aaab" + b"aab", [b"a", b""]),
        (b"\0", b"a\0\xff\0", [b"a", b"\xff"]),
    ],
)
def test_eof_decodes(terminator: bytes, data: bytes, frames: list[bytes]) -> None:
    """Frames stand between terminators; the beginning of one is data unless the rest follows."""
    check_decodes(EofFraming(terminator), data, frames)


@pytest.mark.parametrize("terminator", [b"\n", b"\r\n", b"\r\n\r\n"])
def test_eof_limit_is_exact(terminator: bytes) -> None:
    """A frame of max_length bytes passes, its terminator not counted; one byte more does not."""
    check_decodes(EofFraming(terminator), b"abcd" + terminator, [b"abcd"], max_length=4)
    for chunks in cuts(b"ab" + terminator + b"abcde" + terminator):
        outcome = run(EofFraming(terminator), chunks, 4)
        assert outcome.frames == [b"ab"]
        assert outcome.reason == "FrameTooLargeError: frame of 5 bytes exceeds max_length 4"


@pytest.mark.parametrize(
    ("data", "first_bad", "size"),
    [
        (b"abcde", 5, 5),
        (b"abcd\ra", 6, 6),
        (b"abcd\r\n\r\r", 8, 7),  # the last byte may begin the terminator of a frame of 7 bytes
        (b"abcdefgh\r\n\r", 5, 8),
    ],
)
def test_eof_limit_does_not_wait_for_the_terminator(data: bytes, first_bad: int, size: int) -> None:
    """A frame fails with the first byte that rules out a terminator within the limit."""
    outcome = run(EofFraming(b"\r\n\r\n"), [data], 4)
    assert outcome.reason == f"FrameTooLargeError: frame of {size} bytes exceeds max_length 4"
    assert run(EofFraming(b"\r\n\r\n"), [data[: first_bad - 1]], 4).error is None
    assert run(EofFraming(b"\r\n\r\n"), [data[:first_bad]], 4).error is not None


def test_eof_incomplete() -> None:
    """An end of data before the terminator says how much had come, since the last frame."""
    error = incomplete(EofFraming(b"\r\n"), b"ab\r\nabc\r")

    assert (error.received, error.expected) == (4, None)


@given(terminator=terminators, payload=eof_bytes)
@settings(deadline=None)
def test_eof_encode_refuses_what_would_not_come_back(terminator: bytes, payload: bytes) -> None:
    """Payloads are refused if, and only if, a peer would see their end too early."""
    decoder = EofFraming(terminator).decoder(100)
    decoder.receive_data(payload + terminator)
    if decoder.next_frame() == payload:
        assert EofFraming(terminator).encode(payload) == payload + terminator
    else:
        with pytest.raises(ValueError, match=r"^terminator b'.*' begins inside the payload, at"):
            EofFraming(terminator).encode(payload)


def test_eof_encode_names_the_place() -> None:
    """The message says which terminator, and where."""
    with pytest.raises(
        ValueError, match=r"^terminator b'\\n\\n' begins inside the payload, at byte 1$"
    ):
        EofFraming(b"\n\n").encode(b"a\n")


@pytest.mark.parametrize(
    ("terminator", "kind", "message"),
    [
        (b"", ValueError, r"^terminator must not be empty: b''$"),
        ("\n", TypeError, r"^terminator must be bytes not '\\n'$"),
        (bytearray(b"\n"), TypeError, r"^terminator must be bytes not bytearray\(b'\\n'\)$"),
    ],
)
def test_eof_spec_is_checked(terminator: bytes, kind: type[Exception], message: str) -> None:
    """A terminator is one byte or more."""
    with pytest.raises(kind, match=message):
        EofFraming(terminator)


@pytest.mark.parametrize(
    ("size", "frames"), [(2, [b"ab", b"cd"]), (5, [b"abcde"]), (100, [b"x" * 100])]
)
def test_fixed_decodes(size: int, frames: list[bytes]) -> None:
    """Frames follow each other, size bytes each, up to the limit."""
    check_decodes(FixedFraming(size), b"".join(frames), frames)


def test_fixed_incomplete() -> None:
    """An end of data in a frame says how much of it had come."""
    error = incomplete(FixedFraming(4), b"abcdab")

    assert (error.received, error.expected) == (2, 4)
    assert str(error) == (
        "end of data in the middle of a frame (received 2 bytes, expected 4 bytes)"
    )


def test_fixed_size_above_max_length() -> None:
    """A size that no frame may have is an error before any byte."""
    with pytest.raises(ValueError, match=r"^size 5 exceeds max_length 4$"):
        FixedFraming(5).decoder(4)


def test_fixed_encode() -> None:
    """A payload of another size is refused."""
    assert FixedFraming(3).encode(b"abc") == b"abc"
    for payload in (b"ab", b"abcd"):
        message = rf"^payload must have 3 bytes, not {len(payload)}$"
        with pytest.raises(ValueError, match=message):
            FixedFraming(3).encode(payload)


@pytest.mark.parametrize(
    ("size", "kind", "message"),
    [
        (0, ValueError, r"^size must be >= 1: 0$"),
        ("4", TypeError, r"^size must be an int not '4'$"),
    ],
)
def test_fixed_spec_is_checked(size: int, kind: type[Exception], message: str) -> None:
    """A size is a whole number of at least one byte."""
    with pytest.raises(kind, match=message):
        FixedFraming(size)
