"""`LengthFraming`: letters, offsets, limits, and lengths that cannot be."""

from __future__ import annotations

import sys
from typing import Literal, TypedDict

import attrs
import pytest
from strategies import check_decodes, check_fails, incomplete, run

from trioserver._net._framing import LengthFraming

Order = Literal["little", "big"]
LETTERS: list[tuple[str, int, Order, bool]] = [
    ("c", 1, "big", True),
    ("C", 1, "big", False),
    ("s", 2, sys.byteorder, True),
    ("S", 2, sys.byteorder, False),
    ("n", 2, "big", False),
    ("v", 2, "little", False),
    ("l", 4, sys.byteorder, True),
    ("L", 4, sys.byteorder, False),
    ("N", 4, "big", False),
    ("V", 4, "little", False),
]
each_letter = pytest.mark.parametrize(
    ("letter", "size", "order", "signed"), LETTERS, ids=[letter for letter, *_ in LETTERS]
)


class Options(TypedDict, total=False):
    length_type: str
    length_offset: int
    body_offset: int
    keep_header: bool


@each_letter
def test_letters(letter: str, size: int, order: Order, signed: bool) -> None:  # noqa: FBT001  # a column
    """Each letter has the size and byte order of PHP's pack, in both directions."""
    payload = b"x" * (100 if size == 1 else 0x0102)
    data = len(payload).to_bytes(size, order) + payload

    assert LengthFraming(letter).encode(payload) == data
    check_decodes(
        LengthFraming(letter), data + bytes(size), [payload, b""], max_length=300, partial=b"\1"
    )


@each_letter
def test_signs(letter: str, size: int, order: Order, signed: bool) -> None:  # noqa: FBT001  # a column
    """All bits set is -1 where the letter is signed, else the largest length."""
    largest = 2 ** (8 * size) - 1
    reason = (
        "FramingError: length -1 is negative"
        if signed
        else f"FrameTooLargeError: frame of {largest} bytes exceeds max_length 100"
    )
    good = (1).to_bytes(size, order) + b"a"
    check_fails(LengthFraming(letter), good + b"\xff" * size, [b"a"], reason)


@pytest.mark.parametrize(
    ("letter", "longest"),
    [("c", 127), ("C", 255), ("s", 32767), ("S", 65535), ("n", 65535), ("v", 65535)],
)
def test_encode_too_long(letter: str, longest: int) -> None:
    """The longest payload that the length field can count is encoded, one byte more is refused."""
    data = LengthFraming(letter).encode(b"x" * longest)

    assert run(LengthFraming(letter), [data], longest).frames == [b"x" * longest]
    message = rf"^payload of {longest + 1} bytes is too long for length_type '{letter}'$"
    with pytest.raises(ValueError, match=message):
        LengthFraming(letter).encode(b"x" * (longest + 1))


@pytest.mark.parametrize(
    ("options", "package", "frame"),
    [
        ({}, b"\0\3abc", b"abc"),
        ({"body_offset": 0}, b"\0\5abc", b"abc"),
        ({"body_offset": 1}, b"\0\4abc", b"abc"),
        ({"body_offset": 4}, b"\0\3\0\0abc", b"abc"),
        ({"length_offset": 3}, b"\0\0\0\0\3abc", b"abc"),
        ({"length_offset": 3, "body_offset": 0}, b"\0\0\0\0\x08abc", b"abc"),
        ({"length_offset": 3, "body_offset": 3}, b"\0\0\0\0\5abc", b"abc"),
        ({"length_offset": 1, "body_offset": 6}, b"\0\0\3\0\0\0abc", b"abc"),
        ({"length_offset": 1, "body_offset": 6}, b"\0\0\0\0\0\0", b""),
        ({"body_offset": 0}, b"\0\2", b""),
    ],
)
def test_offsets(options: Options, package: bytes, frame: bytes) -> None:
    """The length counts from body_offset; the frame is what follows the header."""
    framing = attrs.evolve(LengthFraming(**options), length_type="n")

    assert framing.encode(frame) == package
    check_decodes(framing, package * 2, [frame, frame], partial=package[:1])

    whole = attrs.evolve(framing, keep_header=True)
    assert whole.encode(package) == package
    check_decodes(whole, package * 2, [package, package], partial=package[:1])


def test_header_of_the_users() -> None:
    """Header bytes beside the length field are skipped, or kept with the rest of the package."""
    package = b"v1" + b"\0\3" + b"id" + b"abc"
    check_decodes(LengthFraming("n", length_offset=2, body_offset=6), package, [b"abc"])
    whole = LengthFraming("n", length_offset=2, body_offset=6, keep_header=True)

    assert whole.encode(package) == package
    check_decodes(whole, package, [package])


def test_limit_is_exact() -> None:
    """max_length counts the frame as it is fetched: with the header only if that is kept."""
    check_decodes(LengthFraming("n"), b"\0\4abcd", [b"abcd"], max_length=4, partial=b"\0")
    check_fails(
        LengthFraming("n"),
        b"\0\1a" + b"\0\5abcde",
        [b"a"],
        "FrameTooLargeError: frame of 5 bytes exceeds max_length 4",
        max_length=4,
    )
    whole = LengthFraming("n", keep_header=True)
    check_decodes(whole, b"\0\2ab", [b"\0\2ab"], max_length=4, partial=b"\0")
    check_fails(
        whole,
        b"\0\3",
        [],
        "FrameTooLargeError: frame of 5 bytes exceeds max_length 4",
        max_length=4,
    )


def test_a_bad_length_fails_at_once() -> None:
    """The length field alone is enough, though more of the header is to come."""
    framing = LengthFraming("n", body_offset=10)
    assert run(framing, [b"\0"]).error is None

    check_fails(
        framing, b"\0\x65", [], "FrameTooLargeError: frame of 101 bytes exceeds max_length 100"
    )


@pytest.mark.parametrize(
    ("options", "data", "reason"),
    [
        (
            {"body_offset": 0},
            b"\1\0",
            "length 1 is shorter than the part of the header that it counts, 2 bytes",
        ),
        (
            {"body_offset": 0, "length_offset": 4},
            b"abcd\5\0",
            "length 5 is shorter than the part of the header that it counts, 6 bytes",
        ),
        (
            {"body_offset": 4, "length_offset": 3, "keep_header": True},
            b"abc\0\0",
            "length 0 is shorter than the part of the header that it counts, 1 bytes",
        ),
        ({"body_offset": 0}, b"\xfe\xff", "length -2 is negative"),
        ({"body_offset": 8}, b"\xfe\xff", "length -2 is negative"),
        ({"keep_header": True}, b"\0\x80", "length -32768 is negative"),
    ],
)
@pytest.mark.skipif(sys.byteorder == "big", reason="written for little-endian machines")
def test_impossible_lengths(options: Options, data: bytes, reason: str) -> None:
    """A length that is negative, or that ends inside the header, breaks the framing."""
    framing = attrs.evolve(LengthFraming(**options), length_type="s")
    check_fails(framing, data, [], f"FramingError: {reason}")


@pytest.mark.parametrize(
    ("data", "received", "expected"),
    [
        (b"\0\3abc" + b"\0", 1, 2),
        (b"\0\3", 2, 5),
        (b"\0\3ab", 4, 5),
    ],
)
def test_incomplete(data: bytes, received: int, expected: int) -> None:
    """The package that an end of data cut short: its size if known, else that of the header."""
    error = incomplete(LengthFraming("n"), data)

    assert (error.received, error.expected) == (received, expected)


@pytest.mark.parametrize(
    ("package", "message"),
    [
        (b"\0", r"^package of 1 bytes is shorter than its header of 2 bytes$"),
        (b"\0\1", r"^package of 2 bytes has a length field that makes it 3 bytes$"),
        (b"\0\1ab", r"^package of 4 bytes has a length field that makes it 3 bytes$"),
    ],
)
def test_encode_checks_packages(package: bytes, message: str) -> None:
    """With keep_header a package whose length field is wrong is refused."""
    with pytest.raises(ValueError, match=message):
        LengthFraming("n", keep_header=True).encode(package)


def test_header_above_max_length() -> None:
    """With keep_header a limit below the header is an error before any byte; else it is none."""
    LengthFraming(length_offset=4).decoder(1)
    LengthFraming(length_offset=4, keep_header=True).decoder(8)
    with pytest.raises(ValueError, match=r"^header of 8 bytes exceeds max_length 7$"):
        LengthFraming(length_offset=4, keep_header=True).decoder(7)


@pytest.mark.parametrize("letter", ["Q", "", "NN", "B"])
def test_unknown_letters(letter: str) -> None:
    """Only Swoole's letters are known."""
    message = rf"^length_type must be one of c C s S n N l L v V: '{letter}'$"
    with pytest.raises(ValueError, match=message):
        LengthFraming(letter)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"length_type": 4}, TypeError, r"^length_type must be a str not 4$"),
        ({"length_offset": -1}, ValueError, r"^length_offset must be >= 0: -1$"),
        ({"length_offset": None}, TypeError, r"^length_offset must be an int not None$"),
        ({"body_offset": -1}, ValueError, r"^body_offset must be >= 0: -1$"),
        ({"body_offset": 4.0}, TypeError, r"^body_offset must be an int not 4\.0$"),
        ({"keep_header": 1}, TypeError, r"^keep_header must be a bool not 1$"),
        (
            {"length_type": "c", "length_offset": 127, "body_offset": 0},
            ValueError,
            r"^length_type 'c' is too small to count a header of 128 bytes$",
        ),
    ],
)
def test_spec_is_checked(options: Options, kind: type[Exception], message: str) -> None:
    """Options that are wrong, or under which no frame could be, are named."""
    with pytest.raises(kind, match=message):
        LengthFraming(**options)
