"""The records on a worker's socket: sans-IO, so each case runs however the bytes are cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import chunked, cuts

from trioserver._errors import summary_of
from trioserver._tasks._wire import (
    ORDER,
    REPORT,
    Failure,
    Kind,
    Order,
    RecordStream,
    Report,
    Status,
    TaskStream,
    pack_orders,
    pack_timeout,
    unpack_orders,
    unpack_timeout,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Make = Callable[..., RecordStream[Any]]

words = st.integers(0, 2**64 - 1)
reports = st.tuples(
    words,
    st.sampled_from(list(Status)).map(int),
    st.floats(0, 1e9),
    st.floats(0, 1e9),
    st.binary(max_size=40),
)


def packed(records: Iterable[Report]) -> bytes:
    return b"".join(
        REPORT.pack(seq, status, begun, ran, len(body)) + body
        for seq, status, begun, ran, body in records
    )


def fed(make: Make, chunks: Iterable[bytes]) -> tuple[list[Report], int]:
    """The records that come out of ``chunks``, and how many bytes are held then."""
    stream: RecordStream[Report] = make(REPORT)
    records = [record for chunk in chunks for record in stream.feed(chunk)]
    return records, stream.held


both = pytest.mark.parametrize("make", [RecordStream, TaskStream])

THREE: list[Report] = [
    (1, Status.OK, 5.5, 0.25, b"body"),
    (2**64 - 1, Status.SKIPPED, 0.0, 0.0, b""),
    (3, Status.FAILED, 1e9, 1e-9, b"\0" * 50),
]


@both
def test_records_come_out_however_the_bytes_are_cut(make: Make) -> None:
    """Whole, byte by byte, in two parts at every place, and with a part of the next behind."""
    for partial in (b"", packed(THREE)[:5], packed(THREE)[: REPORT.size + 3]):
        for chunks in cuts(packed(THREE) + partial):
            assert fed(make, chunks) == (THREE, len(partial))


@both
@given(st.lists(reports, max_size=8), st.lists(st.integers(0, 10**6), max_size=12))
def test_any_records_come_out_of_any_chunks(
    make: Make, records: list[Report], places: list[int]
) -> None:
    """What was packed comes out, in order, wherever the stream was cut."""
    assert fed(make, chunked(packed(records), places)) == (records, 0)


@both
def test_orders_come_out_as_they_went_in(make: Make) -> None:
    """The other direction has another header and the same rules."""
    orders: list[Order] = [(1, 0, 1, Kind.TASK, b"data"), (2, 2**64 - 1, 2, Kind.CALL, b"")]
    data = b"".join(ORDER.pack(*order[:-1], len(order[-1])) + order[-1] for order in orders)
    stream: RecordStream[Order] = make(ORDER)

    assert [order for chunk in (data[:30], data[30:]) for order in stream.feed(chunk)] == orders


def test_many_orders_travel_as_one() -> None:
    """Numbers of any size, and bodies of any bytes, in their order."""
    orders: list[Order] = [
        (2**64 - 1, 2**64 - 1, 2**32 - 1, 1, bytes(range(256))),
        (1, 0, 1, 0, b""),
        (2, 5, 1, 0, b"data"),
    ]
    stream: TaskStream[Order] = TaskStream(ORDER)

    ((*head, body),) = stream.feed(pack_orders(orders))

    assert head == [0, 0, 0, Kind.MANY]
    assert unpack_orders(body) == orders


@both
def test_a_body_is_told_when_its_last_byte_is_there(make: Make) -> None:
    """Nothing comes out a byte early, and nothing is kept back."""
    stream: RecordStream[Report] = make(REPORT)
    data = packed(THREE[:1])

    assert stream.feed(data[:-1]) == []
    assert stream.held == len(data) - 1
    assert stream.feed(data[-1:]) == THREE[:1]
    assert stream.held == 0


@both
def test_a_large_body_in_many_pieces_is_joined_once(make: Make) -> None:
    """Linear: pieces are only collected until the record can be whole."""

    class CountedHeader:
        """A header that counts how often anyone looks into the bytes."""

        size = REPORT.size
        looked = 0

        def unpack_from(self, data: bytes, at: int) -> tuple[object, ...]:
            self.looked += 1
            return REPORT.unpack_from(data, at)

    header = CountedHeader()
    stream: RecordStream[Report] = make(header)
    body = bytes(1_000_000)
    data = packed([(1, Status.OK, 0.0, 0.0, body)])

    records = [
        record for at in range(0, len(data), 1000) for record in stream.feed(data[at : at + 1000])
    ]

    assert records == [(1, Status.OK, 0.0, 0.0, body)]
    assert header.looked == 2  # once for the size, once with everything there


@given(st.text(st.characters(), max_size=20), st.text(st.characters(), max_size=20), st.binary())
def test_a_failure_survives_its_packing(summary: str, traceback: str, pickled: bytes) -> None:
    """Texts and exception come back; what UTF-8 has no bytes for comes back escaped."""
    failure = Failure.unpack(Failure(summary, traceback, pickled).pack())

    assert failure == (
        summary.encode(errors="backslashreplace").decode(),
        traceback.encode(errors="backslashreplace").decode(),
        pickled,
    )


def test_surrogates_in_a_failure_are_escaped() -> None:
    """A file name that is not UTF-8 is common in messages, and must not break the report."""
    failure = Failure.unpack(Failure("OSError: \udcff", "at \ud800", b"").pack())

    assert failure == ("OSError: \\udcff", "at \\ud800", b"")


@given(st.floats(allow_nan=False), st.booleans())
def test_a_timeout_survives_its_packing(seconds: float, begun: bool) -> None:  # noqa: FBT001
    """Seconds to the bit, and whether it had begun."""
    assert unpack_timeout(pack_timeout(seconds, begun)) == (seconds, begun)


class _LyingMeta(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]  # so do hostile classes
        raise RuntimeError("no name")


class _Lying(Exception, metaclass=_LyingMeta):
    pass


class _Silent(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


@pytest.mark.parametrize(
    ("exc", "summary"),
    [
        (ValueError("no good"), "ValueError: no good"),
        (KeyError("k"), "KeyError: 'k'"),
        (ValueError(), "ValueError"),
        (_Lying("text"), "_Lying: text"),
        (_Silent(), "_Silent: <its message cannot be shown>"),
    ],
)
def test_an_exception_is_summed_up_whatever_its_class_does(
    exc: BaseException, summary: str
) -> None:
    """Type and message as the last line of a traceback has them; it never raises."""
    assert summary_of(exc) == summary
