"""Callbacks that share Trio tasks: what each still has to itself."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from net import Seen, logged, receive_all, receive_exactly, reset, serving, tcp_pair

from trioserver._net import _relay

if TYPE_CHECKING:
    from trioserver._net._connection import Connection

who: ContextVar[str] = ContextVar("who", default="nobody")


def living() -> int:
    """How many Trio tasks there are."""
    return trio.lowlevel.current_statistics().tasks_living


async def echo(stream: Connection, frame: bytes) -> None:
    await stream.send_frame(frame)


async def test_an_idle_connection_has_no_task() -> None:
    """However many there are, also after each was served."""
    async with serving(on_receive=echo) as net:
        await trio.testing.wait_all_tasks_blocked()
        before = living()
        for _ in range(50):
            client = net.connect()
            await client.send_all(b"x\n")
            assert await receive_exactly(client, 2) == b"x\n"
        await trio.testing.wait_all_tasks_blocked()
        assert living() == before


async def test_a_callback_that_waits_holds_nobody_up() -> None:
    """Others are served meanwhile, and its own next frames come after it, in order."""
    go_on = trio.Event()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        if frame == b"wait":
            await go_on.wait()
        await stream.send_frame(frame)

    async with serving(on_receive=on_receive) as net:
        waiting = [net.connect() for _ in range(3)]
        for client in waiting:
            await client.send_all(b"wait\n1\n2\n")
        other = net.connect()
        for text in (b"a\n", b"b\n"):
            await other.send_all(text)
            assert await receive_exactly(other, 2) == text
            await trio.testing.wait_all_tasks_blocked()
        await waiting[0].send_all(b"3\n")
        go_on.set()
        assert await receive_exactly(waiting[0], 11) == b"wait\n1\n2\n3\n"
        assert await receive_exactly(waiting[1], 9) == b"wait\n1\n2\n"


async def test_runners_are_kept_but_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """After many have waited at once, a few tasks are left for those that will."""
    monkeypatch.setattr(_relay, "_MOST_SPARE", 3)
    go_on = trio.Event()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        await go_on.wait()
        await stream.send_frame(frame)

    async with serving(on_receive=on_receive) as net:
        await trio.testing.wait_all_tasks_blocked()
        before = living()
        clients = [net.connect() for _ in range(20)]
        for client in clients:
            await client.send_all(b"x\n")
        await trio.testing.wait_all_tasks_blocked()
        assert living() == before + 20
        go_on.set()
        for client in clients:
            assert await receive_exactly(client, 2) == b"x\n"
        await trio.testing.wait_all_tasks_blocked()
        assert living() == before + 3
        await clients[0].send_all(b"x\n")
        assert await receive_exactly(clients[0], 2) == b"x\n"


async def test_a_reset_ends_one_callback() -> None:
    """Of two that wait, only that of the client who has left is cancelled."""
    seen = Seen()
    go_on = trio.Event()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        try:
            seen.add(frame)
            await go_on.wait()
            await stream.send_frame(frame)
        except trio.Cancelled:
            seen.add(b"cancelled " + frame)
            raise

    async with serving(on_receive=on_receive, on_close=seen.on_close) as net:
        staying, leaving = net.connect(), net.connect()
        await staying.send_all(b"stays\n")
        await leaving.send_all(b"leaves\n")
        await seen.wait(b"stays")
        await seen.wait(b"leaves")
        reset(leaving)
        await seen.wait("reset by the client")
        assert b"cancelled leaves" in seen.events
        go_on.set()
        assert await receive_exactly(staying, 6) == b"stays\n"
        assert b"cancelled stays" not in seen.events


async def test_context_variables_belong_to_a_connection() -> None:
    """What one callback sets the next ones see, and those of other connections do not."""
    seen = Seen()

    async def on_connect(stream: Connection) -> None:  # noqa: ASYNC124  # never waits
        who.set(f"connection {stream.id}")

    async def on_receive(stream: Connection, frame: bytes) -> None:
        if frame != b"who":
            who.set(frame.decode())
        if frame == b"late":
            await trio.lowlevel.checkpoint()
        await stream.send_frame(who.get().encode())

    async def on_close(stream: Connection) -> None:  # noqa: ASYNC124
        seen.add(f"{stream.id} was {who.get()}")

    async with serving(on_connect=on_connect, on_receive=on_receive, on_close=on_close) as net:
        for number, name in ((1, b"early"), (2, b"late")):
            client = net.connect()
            await client.send_all(b"who\n%b\nwho\n" % name)
            await client.send_eof()
            expected = b"connection %d\n%b\n%b\n" % (number, name, name)
            assert await receive_all(client) == expected
            await seen.wait(f"{number} was {name.decode()}")

    assert who.get() == "nobody"


@pytest.mark.parametrize("waits", [False, True])
async def test_a_scope_that_is_left_open(caplog: pytest.LogCaptureFixture, *, waits: bool) -> None:
    """It costs its own connection, and to cancel it ends nothing of others."""
    scopes: list[trio.CancelScope] = []

    async def on_receive(stream: Connection, frame: bytes) -> None:
        if frame == b"spoil":
            scopes.append(trio.CancelScope())
            scopes[0].__enter__()  # as an asynchronous generator does that is not run to its end
            if waits:
                await trio.lowlevel.checkpoint()
            return
        await trio.lowlevel.checkpoint()
        await stream.send_frame(frame)

    seen = Seen()
    async with serving(on_receive=on_receive, on_close=seen.on_close, may_fail=True) as net:
        other, spoiling = net.connect(), net.connect()
        await spoiling.send_all(b"spoil\n")
        assert await receive_all(spoiling) == b""
        await seen.wait("on_receive raised RuntimeError")
        scopes[0].cancel()
        for text in (b"1\n", b"2\n"):
            await other.send_all(text)
            assert await receive_exactly(other, 2) == text

    assert logged(caplog) == ["on_receive of connection 2 raised"]


async def test_one_receiver_at_a_time() -> None:
    """A connection at rest waits for its next frame, though no task does."""
    seen = Seen()

    async def on_connect(stream: Connection) -> None:  # noqa: ASYNC124
        async def receive_too() -> None:
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await stream.receive_frame()
            seen.add("busy")

        stream.start_soon(receive_too)

    async with serving(on_connect=on_connect, on_receive=seen.on_receive) as net:
        client = net.connect()
        await seen.wait("busy")
        await client.send_all(b"frame\n")
        await seen.wait(b"frame")


@pytest.mark.parametrize("before", [0, 1, 2, 3, 40])
async def test_frames_before_broken_framing_are_handled(before: int) -> None:
    """All that came whole together with the one that is too large."""
    async with serving(on_receive=echo, max_length=10) as net:
        client = net.connect()
        await client.send_all(b"x\n" * before + bytes(11) + b"\nx\n")
        assert await receive_all(client) == b"x\n" * before


async def test_closed_while_it_is_ready() -> None:
    """Frames that came before `aclose`, but were not handled, are not handled after it."""
    seen = Seen()
    streams: list[Connection] = []

    async def on_connect(stream: Connection) -> None:  # noqa: ASYNC124
        streams.append(stream)

    async def on_receive(stream: Connection, frame: bytes) -> None:
        seen.add((stream.id, frame))
        for other in streams:
            if other is not stream:
                await other.aclose()

    async with serving(on_connect=on_connect, on_receive=on_receive, on_close=seen.on_close) as net:
        pairs = [tcp_pair(), tcp_pair()]
        for _, theirs in pairs:
            net.connections.add_socket(theirs)
        await trio.testing.wait_all_tasks_blocked()
        for ours, _ in pairs:
            ours.send(b"x\n")  # both before anybody runs
        await seen.wait("closed by the server")
        for ours, _ in pairs:
            ours.close()
        assert sum(isinstance(event, tuple) for event in seen) == 1


async def test_cancelled_from_outside() -> None:
    """Every connection is closed, at rest or waiting, and hears of it."""
    seen = Seen()

    async def on_receive(stream: Connection, frame: bytes) -> None:
        seen.add(frame)
        if frame == b"wait":
            await trio.sleep_forever()

    async with serving(on_receive=on_receive, on_close=seen.on_close) as net:
        for text in (b"wait", b"rest", b"wait", b"rest"):
            await net.connect().send_all(text + b"\n")
        await trio.testing.wait_all_tasks_blocked()
        net.connections.nursery.cancel_scope.cancel()
        await trio.sleep_forever()

    assert seen.events.count("server stopped") == 4


async def test_a_context_variable_is_reset_by_the_next_callback() -> None:
    """All callbacks of a connection run in one context, and not in copies of it."""
    seen = Seen()

    async def on_connect(stream: Connection) -> None:  # noqa: ASYNC124  # never waits
        stream.state.token = who.set("connected")

    async def on_receive(stream: Connection, frame: bytes) -> None:
        who.reset(stream.state.token)
        stream.state.token = who.set("received")
        await stream.send_frame(frame)

    async def on_close(stream: Connection) -> None:
        seen.add(who.get())
        await trio.lowlevel.checkpoint()
        who.reset(stream.state.token)
        seen.add(who.get())

    async with serving(on_connect=on_connect, on_receive=on_receive, on_close=on_close) as net:
        client = net.connect()
        await client.send_all(b"1\n2\n")
        await client.send_eof()
        assert await receive_all(client) == b"1\n2\n"
        await seen.wait("nobody")
    assert seen.events == ["received", "nobody"]


async def test_on_connect_that_fails_has_its_context_at_the_end_too() -> None:
    """Also where no frame was ever handled."""
    seen = Seen()

    async def on_connect(stream: Connection) -> None:  # noqa: ASYNC124  # never waits
        stream.state.token = who.set("connected")
        raise ValueError("no good")

    async def on_close(stream: Connection) -> None:  # noqa: ASYNC124
        who.reset(stream.state.token)
        seen.add(who.get())

    async with serving(
        on_connect=on_connect, on_receive=echo, on_close=on_close, may_fail=True
    ) as net:
        net.connect()
        await seen.wait("nobody")


@pytest.mark.parametrize("waits", [False, True])
async def test_the_log_of_a_failure_has_its_context(*, waits: bool) -> None:
    """Filters of the app's may add what its context variables say of the connection."""
    logged_by: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged_by.append(who.get())

    async def on_receive(stream: Connection, frame: bytes) -> None:
        who.set("this one")
        if waits:
            await trio.lowlevel.checkpoint()
        raise ValueError("no good")

    handler = Handler(logging.ERROR)
    logger = logging.getLogger("trioserver.connection")
    logger.addHandler(handler)
    try:
        async with serving(on_receive=on_receive, may_fail=True) as net:
            client = net.connect()
            await client.send_all(b"x\n")
            assert await receive_all(client) == b""
    finally:
        logger.removeHandler(handler)
    assert logged_by == ["this one"]
