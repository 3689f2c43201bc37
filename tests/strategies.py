"""What tests of framing share: the ways to cut bytes into chunks, and how a decoder answers."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import attrs
import pytest
from hypothesis import strategies as st

from trioserver._errors import FramingError, IncompleteFrameError
from trioserver._net._framing import (
    Decoder,
    EofFraming,
    FixedFraming,
    Framing,
    LengthFraming,
    RawFraming,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Case: TypeAlias = tuple[Framing, list[bytes]]


@attrs.frozen
class Outcome:
    """What came out of a decoder, and the error that it ended with."""

    frames: list[bytes]
    error: FramingError | None = None

    @property
    def reason(self) -> str | None:
        return None if self.error is None else f"{type(self.error).__name__}: {self.error}"


def fetch(decoder: Decoder) -> Outcome:
    """Fetch frames until the decoder wants more or fails; a failure must last."""
    frames: list[bytes] = []
    try:
        while (frame := decoder.next_frame()) is not None:
            assert type(frame) is bytes
            frames.append(frame)
    except FramingError as error:
        failure = error
    else:
        return Outcome(frames)
    decoder.receive_data(b"more\r\n")
    for again in (decoder.next_frame, decoder.receive_eof):
        with pytest.raises(type(failure)) as info:
            again()
        assert info.value.args == failure.args
    return Outcome(frames, failure)


def run(framing: Framing, chunks: Iterable[bytes], max_length: int = 100) -> Outcome:
    """Decode ``chunks``, which the peer sends before it goes silent."""
    decoder = framing.decoder(max_length)
    frames: list[bytes] = []
    for chunk in chunks:
        decoder.receive_data(chunk)
        outcome = fetch(decoder)
        frames += outcome.frames
        if outcome.error is not None:
            return Outcome(frames, outcome.error)
    return Outcome(frames)


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Yield ``data`` whole, byte by byte, and in two parts at every place."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for i in range(1, len(data)):
        yield [data[:i], data[i:]]


def check_decodes(
    framing: Framing,
    data: bytes,
    frames: list[bytes],
    *,
    max_length: int = 100,
    partial: bytes = b"x",
) -> None:
    """Assert that ``data`` is ``frames``, however it is cut, also with ``partial`` behind it."""
    for chunks in cuts(data):
        decoder = framing.decoder(max_length)
        received: list[bytes] = []
        for chunk in chunks:
            decoder.receive_data(chunk)
            received += fetch(decoder).frames
        assert (received, fetch(decoder).reason) == (frames, None)
        decoder.receive_eof()
    for chunks in cuts(data + partial):
        outcome = run(framing, chunks, max_length)
        assert (outcome.frames, outcome.reason) == (frames, None)


def check_fails(
    framing: Framing, data: bytes, frames: list[bytes], reason: str, *, max_length: int = 100
) -> None:
    """Assert that ``data`` is ``frames`` and then an error, however it is cut and continued."""
    for more in (b"", b"\n", data):
        for chunks in cuts(data):
            outcome = run(framing, [*chunks[:-1], chunks[-1] + more], max_length)
            assert (outcome.frames, outcome.reason) == (frames, reason)


def incomplete(framing: Framing, data: bytes, max_length: int = 100) -> IncompleteFrameError:
    """Return the error of a peer that sends ``data`` and ends, the same however it is cut."""
    errors: list[IncompleteFrameError] = []
    for chunks in cuts(data):
        decoder = framing.decoder(max_length)
        for chunk in chunks:
            decoder.receive_data(chunk)
            fetch(decoder)
        try:
            decoder.receive_eof()
        except IncompleteFrameError as error:
            errors.append(error)
    assert len(errors) == len(list(cuts(data)))
    assert len({error.args for error in errors}) == 1
    return errors[0]


def chunked(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Cut ``data`` at ``places``, which are taken modulo its length."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


# Few letters, so that terminators and their beginnings are common in payloads.
eof_bytes = st.text("a\r\n", max_size=12).map(str.encode)
terminators = st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b"aa\n", b"a\na"])


eof_framings = st.builds(EofFraming, terminators)
length_framings = st.builds(
    LengthFraming,
    st.sampled_from("cCsSnNlLvV"),
    length_offset=st.integers(0, 5),
    body_offset=st.none() | st.integers(0, 15),
)
# Those whose frames may have any size; what length_framings make fits into 7 bits up to 100 bytes.
free_framings: st.SearchStrategy[Framing] = eof_framings | length_framings


@st.composite
def eof_cases(draw: st.DrawFn) -> Case:
    framing = draw(eof_framings)
    end = framing.terminator
    payloads = eof_bytes.filter(lambda payload: (payload + end).find(end) == len(payload))
    return framing, draw(st.lists(payloads, max_size=8))


@st.composite
def fixed_cases(draw: st.DrawFn) -> Case:
    size = draw(st.integers(1, 12))
    return FixedFraming(size), draw(st.lists(st.binary(min_size=size, max_size=size), max_size=8))


@st.composite
def length_cases(draw: st.DrawFn) -> Case:
    framing = draw(length_framings)
    frames = draw(st.lists(st.binary(max_size=40), max_size=8))
    if draw(st.booleans()):
        return framing, frames
    return attrs.evolve(framing, keep_header=True), [framing.encode(frame) for frame in frames]


raw_cases: st.SearchStrategy[Case] = st.tuples(
    st.just(RawFraming()), st.lists(st.binary(min_size=1, max_size=12), max_size=8)
)
framed_cases: st.SearchStrategy[Case] = st.one_of(eof_cases(), fixed_cases(), length_cases())
