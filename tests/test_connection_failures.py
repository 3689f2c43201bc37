"""What a callback's exception and a broken framing cost: their own connection, and no more."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from net import Seen, logged, receive_all, receive_exactly, serving

from trioserver._net._framing import FixedFraming, RawFraming

if TYPE_CHECKING:
    from trioserver._net._connection import Connection
    from trioserver._net._framing import Decoder


class Odd(BaseException):
    """Nobody's `Exception`."""


FAILURES = [
    ValueError("mine"),
    SystemExit(3),
    Odd(),
    ExceptionGroup("several", [ValueError("a"), KeyError("b")]),
    BaseExceptionGroup("several", [SystemExit(1), ValueError("a")]),
]
each_failure = pytest.mark.parametrize("failure", FAILURES, ids=lambda exc: type(exc).__name__)


async def echo(stream: Connection, frame: bytes) -> None:
    await stream.send_frame(frame)


@each_failure
@pytest.mark.parametrize("place", ["on_connect", "on_receive", "on_stream"])
async def test_a_callback_that_raises(
    place: str, failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection closes, on_close runs, one traceback is logged, and others are served."""
    seen = Seen()

    async def fail(stream: Connection, frame: bytes = b"") -> None:
        await trio.lowlevel.checkpoint()
        if stream.id == 1:
            raise failure
        if place != "on_connect":
            await stream.send_all(b"well")

    async with serving(
        on_connect=fail if place == "on_connect" else None,
        on_receive=None if place == "on_stream" else fail if place == "on_receive" else echo,
        on_stream=fail if place == "on_stream" else None,
        on_close=seen.on_close,
        may_fail=True,
    ) as net:
        first = net.connect()
        await first.send_all(b"well\n")
        assert await receive_all(first) == b""
        await first.aclose()
        await seen.wait(f"{place} raised {type(failure).__name__}")
        second = net.connect()
        await second.send_all(b"well\n")
        assert await receive_exactly(second, 4) == b"well"
        await second.aclose()

    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage() == f"{place} of connection 1 raised"
    assert record.exc_info is not None
    assert repr(record.exc_info[1]) == repr(failure)


@each_failure
async def test_an_on_close_that_raises(
    failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the connection is gone as any other."""
    seen = Seen()

    async def on_close(stream: Connection) -> None:
        seen.add(stream.close_reason)
        await trio.lowlevel.checkpoint()
        raise failure

    async with serving(on_receive=echo, on_close=on_close, may_fail=True) as net:
        client = net.connect()
        await client.send_eof()
        assert await receive_all(client) == b""
        await seen.wait("closed by the client")

    assert list(seen) == ["closed by the client"]
    assert logged(caplog) == ["on_close of connection 1 raised"]


async def test_replies_before_a_failure_are_sent() -> None:
    """What earlier frames were answered still leaves, though it was joined to wait for more."""

    async def on_receive(stream: Connection, frame: bytes) -> None:
        if frame == b"bad":
            raise ValueError(frame)
        await stream.send_frame(frame)

    async with serving(on_receive=on_receive, may_fail=True) as net:
        client = net.connect()
        await client.send_all(b"one\ntwo\nbad\nthree\n")
        assert await receive_all(client) == b"one\ntwo\n"


async def test_cancelled_inside_a_group_passes() -> None:
    """A callback's group of its own failure and Trio's Cancelled loses neither."""
    seen = Seen()

    async def on_stream(stream: Connection) -> None:
        async def fail_when_cancelled() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("in the cleanup")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)
            seen.add("runs")

    async with serving(on_stream=on_stream, on_close=seen.on_close, may_fail=True) as net:
        net.connect()
        await seen.wait("runs")
        await trio.testing.wait_all_tasks_blocked()
        net.stopping.request()
        (connection,) = net.connections.all()
        connection.was_reset()
        await seen.wait("reset by the client")


async def test_on_stream_may_catch_a_framing_error(caplog: pytest.LogCaptureFixture) -> None:
    """The handler can still answer; the connection closes with the error as its reason."""
    seen = Seen()

    async def on_stream(stream: Connection) -> None:
        try:
            await stream.receive_frame()
        except Exception as exc:  # noqa: BLE001  # which one is asserted
            await stream.send_all(f"{type(exc).__name__}: {exc}".encode())

    async with serving(on_stream=on_stream, on_close=seen.on_close, max_length=3) as net:
        client = net.connect()
        await client.send_all(b"too long\n")
        reason = "frame of 8 bytes exceeds max_length 3"
        assert await receive_all(client) == b"FrameTooLargeError: " + reason.encode()
        await seen.wait(reason)

    (line,) = logged(caplog)
    assert line.endswith(f"is closed: {reason}")


async def test_a_decoder_that_cannot_be_made(caplog: pytest.LogCaptureFixture) -> None:
    """A framing that fails costs the connections that need it, and not the server."""
    seen = Seen()
    framing = FixedFraming(100)
    async with serving(
        on_receive=echo, on_close=seen.on_close, framing=framing, max_length=10, may_fail=True
    ) as net:
        assert await receive_all(net.connect()) == b""
        await seen.wait("framing raised ValueError")
        assert await receive_all(net.connect()) == b""

    assert logged(caplog) == ["framing of connection 1 raised", "framing of connection 2 raised"]


async def test_a_decoder_that_raises(caplog: pytest.LogCaptureFixture) -> None:
    """So does one that fails later."""

    class Broken:
        def encode(self, payload: bytes) -> bytes:
            return payload

        def decoder(self, max_length: int) -> Decoder:
            decoder = RawFraming().decoder(max_length)

            class Raising:
                receive_data = decoder.receive_data
                receive_eof = decoder.receive_eof

                def next_frame(self) -> bytes | None:
                    if decoder.next_frame():
                        raise ZeroDivisionError
                    return None

            return Raising()

    async with serving(on_receive=echo, framing=Broken(), may_fail=True) as net:
        client = net.connect()
        await client.send_all(b"x")
        assert await receive_all(client) == b""

    assert logged(caplog) == ["on_receive of connection 1 raised"]
