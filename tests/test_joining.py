"""Replies that are joined while a callback runs, and written before it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from outboxes import Fixture, cancel_when_settled, settle

from trioserver._net._outbox import HIGH_WATER

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


async def run_callback(made: Fixture, callback: Callable[[], Coroutine[Any, Any, None]]) -> None:
    await made.outbox.write_before_waiting(callback())


async def test_replies_are_joined_with_the_last(nursery: trio.Nursery) -> None:
    """What was joined leaves in one write with the next send."""
    made = Fixture(nursery, room=1000)

    async def callback() -> None:
        assert made.outbox.join(b"a")
        assert made.outbox.join(b"b")
        await made.send_all(b"c")

    await run_callback(made, callback)

    assert made.kernel.writes == [b"abc"]


async def test_nothing_is_held_back_while_a_callback_waits(nursery: trio.Nursery) -> None:
    """Joined bytes are written before every wait of the callback, also one that is cancelled."""
    made = Fixture(nursery, room=1000)
    event = trio.Event()

    async def callback() -> None:
        assert made.outbox.join(b"a")
        await trio.lowlevel.checkpoint()
        assert made.outbox.join(b"b")
        with trio.move_on_after(0):
            await trio.sleep_forever()
        assert made.outbox.join(b"c")
        await event.wait()

    nursery.start_soon(run_callback, made, callback)
    await settle()

    assert made.kernel.writes == [b"a", b"b", b"c"]
    event.set()


async def test_others_send_directly_while_a_callback_waits(nursery: trio.Nursery) -> None:
    """Only the callback's own sends are joined; others' come after what it had joined."""
    made = Fixture(nursery, room=1000)
    event = trio.Event()

    async def callback() -> None:
        assert made.outbox.join(b"mine.")
        await event.wait()

    nursery.start_soon(run_callback, made, callback)
    await settle()
    assert not made.outbox.join(b"x")
    await made.send_all(b"theirs.")

    assert made.kernel.writes == [b"mine.", b"theirs."]
    event.set()


async def test_joined_bytes_are_bounded(nursery: trio.Nursery) -> None:
    """Above the high-water mark a reply is not joined, and then it waits for room as any send."""
    made = Fixture(nursery, room=HIGH_WATER)

    async def callback() -> None:
        assert made.outbox.join(b"x" * HIGH_WATER)
        assert not made.outbox.join(b"y")
        await made.send_all(b"y")

    nursery.start_soon(run_callback, made, callback)
    await settle()
    assert made.kernel.written == b"x" * HIGH_WATER
    made.kernel.make_room(1)
    await settle()
    assert made.kernel.written == b"x" * HIGH_WATER + b"y"


@pytest.mark.parametrize("room", [0, 1, 5, 6])
async def test_a_cancelled_send_does_not_take_joined_replies_along(
    nursery: trio.Nursery, room: int
) -> None:
    """Calls that have returned are sent, whatever becomes of the send that they left with."""
    made = Fixture(nursery, room=room)

    async def callback() -> None:
        assert made.outbox.join(b"joined")
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when_settled, scope)
            await made.send_all(b" and cancelled")

    await run_callback(made, callback)
    made.kernel.make_room(100)
    await settle()

    assert made.kernel.written == b"joined"


async def test_a_break_before_a_wait_raises_at_the_next_send(nursery: trio.Nursery) -> None:
    """The write before a wait cannot raise there: the callback waits, and hears it afterwards."""
    made = Fixture(nursery, room=1000)
    seen: list[str] = []

    async def callback() -> None:
        assert made.outbox.join(b"a")
        made.kernel.break_off()
        await trio.lowlevel.checkpoint()
        seen.append("goes on")
        assert not made.outbox.join(b"b")
        with pytest.raises(trio.BrokenResourceError, match=r"^the connection was reset$"):
            await made.send_all(b"b")
        seen.append("heard it")

    await run_callback(made, callback)

    assert (seen, made.broken) == (["goes on", "heard it"], 1)


async def test_what_runs_the_callback_is_transparent(nursery: trio.Nursery) -> None:
    """Exceptions, cancellation and nested waits pass through as if it were a plain await."""
    made = Fixture(nursery, room=1000)

    async def raises() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        await run_callback(made, raises)
    with trio.move_on_after(0) as scope:
        await run_callback(made, trio.sleep_forever)
    assert scope.cancelled_caught


async def test_closing_an_unfinished_callback(nursery: trio.Nursery) -> None:
    """A callback whose Trio task is thrown away is closed, and runs its ``finally``."""
    made = Fixture(nursery, room=1000)
    seen: list[str] = []

    async def callback() -> None:
        try:
            await trio.lowlevel.checkpoint()
        finally:
            seen.append("closed")

    running = run_callback(made, callback)
    running.send(None)
    await settle()
    running.close()

    assert seen == ["closed"]
