"""How connections end with the server: idle ones, callbacks that run, and floods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing
from net import Seen, each_carrier, each_tcp, receive_all, receive_exactly, reset, serving

if TYPE_CHECKING:
    from trioserver._net._connection import Connection


async def echo(stream: Connection, frame: bytes) -> None:
    await stream.send_frame(frame)


@each_carrier
async def test_a_stop_closes_idle_connections(carrier: str) -> None:
    """Connections that wait for a frame close at once; nothing was cut, even without any time."""
    seen = Seen()
    async with serving(carrier, on_receive=echo, on_close=seen.on_close, max_wait_time=0) as net:
        client = net.connect()
        await client.send_all(b"x\n")
        await receive_exactly(client, 2)
        await trio.testing.wait_all_tasks_blocked()

    assert list(seen) == ["server stopped"]
    assert net.stopping.cut == 0


@each_carrier
async def test_a_stop_lets_a_callback_end(carrier: str) -> None:
    """A callback that runs goes on and answers; what the client sends meanwhile is not handled."""
    seen = Seen()
    go_on = trio.Event()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        seen.add(frame)
        await go_on.wait()
        await stream.send_frame(frame)

    async def stop_and_go_on(client: trio.abc.Stream) -> None:
        await net.stopping.wait_requested()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
        answers.append(await receive_all(client))

    answers: list[bytes] = []
    async with (
        trio.open_nursery() as nursery,
        serving(carrier, on_receive=on_receive, on_close=seen.on_close) as net,
    ):
        client = net.connect()
        await client.send_all(b"first\n")
        await seen.wait(b"first")
        nursery.start_soon(stop_and_go_on, client)

    assert answers == [b"first\n"]
    assert list(seen) == [b"first", "server stopped"]
    assert net.stopping.cut == 0


async def test_whole_frames_are_handled_before_a_stop() -> None:
    """Frames that had come whole are answered; a part of one is dropped without a word."""
    seen = Seen()
    go_on = trio.Event()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        seen.add(frame)
        await go_on.wait()

    async def stop_and_go_on() -> None:
        await net.stopping.wait_requested()
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()

    async with (
        trio.open_nursery() as nursery,
        serving(on_receive=on_receive, on_close=seen.on_close) as net,
    ):
        await net.connect().send_all(b"1\n2\n3\nfou")
        await seen.wait(b"1")
        nursery.start_soon(stop_and_go_on)

    assert list(seen) == [b"1", b"2", b"3", "server stopped"]


@each_tcp
async def test_a_client_that_goes_on_sending_cannot_delay_a_stop(carrier: str) -> None:
    """Reading stops, however much more there is to read."""
    seen = Seen()

    async def flood(client: trio.abc.Stream) -> None:
        try:
            while True:
                await client.send_all(b"x\n" * 50_000)
        except trio.BrokenResourceError:
            return

    async def on_receive(stream: Connection, frame: bytes) -> None:
        seen.add("flooded")
        await trio.lowlevel.checkpoint()

    async with (
        trio.open_nursery() as nursery,
        # Time enough, so that only the end of reading can be what ends it.
        serving(carrier, on_receive=on_receive, on_close=seen.on_close, max_wait_time=1e6) as net,
    ):
        client = net.connect()
        nursery.start_soon(flood, client)
        await seen.wait("flooded")

    assert "server stopped" in list(seen)
    assert net.stopping.cut == 0


@each_carrier
async def test_a_callback_that_does_not_end_is_cut(carrier: str) -> None:
    """At the deadline it is cancelled and counted, and on_close runs."""
    seen = Seen()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        seen.add("runs")
        try:
            await trio.sleep_forever()
        finally:
            seen.add("cut")

    async with serving(
        carrier, on_receive=on_receive, on_close=seen.on_close, max_wait_time=0
    ) as net:
        await net.connect().send_all(b"x\n")
        await seen.wait("runs")

    assert list(seen) == ["runs", "cut", "server stopped"]
    assert net.stopping.cut == 1


@each_carrier
async def test_a_stop_ends_iteration(carrier: str) -> None:
    """Under on_stream frames() ends as at the end of data, and the handler can still send."""

    async def on_stream(stream: Connection) -> None:
        async for frame in stream.frames():
            await stream.send_frame(frame)
        await stream.send_frame(b"bye")

    answers: list[bytes] = []

    async def read(client: trio.abc.Stream) -> None:
        answers.append(await receive_all(client))

    async with trio.open_nursery() as nursery, serving(carrier, on_stream=on_stream) as net:
        client = net.connect()
        await client.send_all(b"x\n")
        assert await receive_exactly(client, 2) == b"x\n"
        nursery.start_soon(read, client)

    assert answers == [b"bye\n"]
    assert net.stopping.cut == 0


async def test_connections_stay_open_until_they_are_told() -> None:
    """After the stop of reading a connection can be written to, and closes when someone says so."""
    seen = Seen()
    async with serving(on_receive=echo, on_close=seen.on_close) as net:
        clients = [net.connect() for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        first, second, third = net.connections.all()
        net.connections.stop_reading()
        await trio.testing.wait_all_tasks_blocked()
        await first.send_all(b"late")
        assert await receive_exactly(clients[0], 4) == b"late"
        await second.aclose()
        await seen.wait("closed by the server")
        assert await receive_all(clients[1]) == b""
        reset(clients[2])
        await seen.wait("reset by the client")
        assert net.connections.all() == (first,)
        assert third.close_reason == "reset by the client"

    assert list(seen)[2:] == ["server stopped"]


async def test_cancellation_ends_everything_at_once() -> None:
    """When the server is cancelled, connections close, and on_close runs to its first wait."""
    seen = Seen()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        seen.add("runs")
        await trio.sleep_forever()

    async def on_close(stream: Connection) -> None:
        seen.add(stream.close_reason)
        await trio.lowlevel.checkpoint()
        seen.add("goes on")

    with trio.CancelScope() as scope:
        async with serving(on_receive=on_receive, on_close=on_close) as net:
            await net.connect().send_all(b"x\n")
            await seen.wait("runs")
            scope.cancel()
            await trio.lowlevel.checkpoint()

    assert list(seen) == ["runs", "server stopped"]
