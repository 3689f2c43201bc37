"""What decoders buffer: each byte is copied and searched a bounded number of times, then let go."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, SupportsIndex

import pytest

from trioserver._errors import FrameTooLargeError
from trioserver._net._framing import (
    EofFraming,
    FixedFraming,
    Framing,
    LengthFraming,
    RawFraming,
)
from trioserver._net._framing_buffer import BufferedDecoder

if TYPE_CHECKING:
    from typing_extensions import Buffer


def buffered(framing: Framing, *chunks: bytes) -> BufferedDecoder:
    decoder = framing.decoder(1_000_000)
    assert isinstance(decoder, BufferedDecoder)
    for chunk in chunks:
        decoder.receive_data(chunk)
        decoder.next_frame()
    return decoder


def test_frames_are_cut_out_of_the_chunk() -> None:
    """A chunk that meets an empty buffer is not copied."""
    chunk = b"a\nb\nc"

    assert buffered(EofFraming(b"\n"), chunk)._buffer is chunk


@pytest.mark.parametrize("framing", [EofFraming(b"\n"), LengthFraming(), FixedFraming(5000)])
def test_a_frame_in_many_chunks_grows_in_place(framing: Framing) -> None:
    """What is buffered of a frame is not copied again for each small chunk."""
    decoder = buffered(framing, b"\0\0\x20\0", b"x" * 10, b"x")
    buffer = decoder._buffer
    for _ in range(4000):
        decoder.receive_data(b"x")
        decoder.next_frame()

    assert decoder._buffer is buffer
    assert len(buffer) == 4015


class Searched(bytearray):
    """Counts the bytes that searches have looked at."""

    looked_at = 0

    def find(
        self,
        sub: Buffer | SupportsIndex,
        start: SupportsIndex | None = None,
        end: SupportsIndex | None = None,
        /,
    ) -> int:
        self.looked_at += len(self) - int(start or 0)
        return super().find(sub, start, end)


def test_a_search_goes_on_where_the_last_one_ended() -> None:
    """Each byte is searched once, but for those that a terminator may have begun with."""
    decoder = buffered(EofFraming(b"\r\n\r\n"), b"x" * 10, b"x")
    buffer = Searched(decoder._buffer)
    decoder._buffer = buffer
    for _ in range(4000):
        decoder.receive_data(b"x")
        decoder.next_frame()

    assert decoder._buffer is buffer
    assert buffer.looked_at == 4000 * 4


@pytest.mark.parametrize("chunks", [[b"a\n"], [b"aaaa", b"a", b"\n"]])
def test_an_idle_decoder_holds_nothing(chunks: list[bytes]) -> None:
    """When every frame is fetched the last chunk is let go."""
    decoder = buffered(EofFraming(b"\n"), *chunks)
    decoder.next_frame()

    assert decoder._buffer == b""


def test_a_failed_decoder_holds_nothing() -> None:
    """After an error no bytes are kept, no more are taken, and there is no cycle to collect."""
    gc.collect()
    decoder = EofFraming(b"\n").decoder(10)
    assert isinstance(decoder, BufferedDecoder)
    decoder.receive_data(b"x" * 100)
    try:
        decoder.next_frame()
    except FrameTooLargeError:
        decoder.receive_data(b"x" * 100)

    assert decoder._buffer == b""
    del decoder
    assert gc.collect() == 0


def test_a_bytearray_may_change_afterwards() -> None:
    """A stream that reuses a bytearray does not change what was received."""
    chunk = bytearray(b"ab")
    framings: list[tuple[Framing, bytes]] = [(RawFraming(), b"ab"), (FixedFraming(1), b"a")]
    for framing, frame in framings:
        decoder = framing.decoder(100)
        decoder.receive_data(chunk)  # type: ignore[arg-type]  # what trio's streams may return
        chunk[:] = b"zz"
        assert decoder.next_frame() == frame
        chunk[:] = b"ab"
