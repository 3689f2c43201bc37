"""Ordered writes: what goes out at once, what waits, and what cancelling and breaking leave."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from net import PATIENCE
from outboxes import Fixture, cancel_when_settled, settle


async def test_what_fits_goes_out_in_the_call(nursery: trio.Nursery) -> None:
    """With room in the kernel a send is one write, and no other task runs meanwhile."""
    made = Fixture(nursery, room=100)
    with trio.testing.assert_no_checkpoints():
        await made.send_all(b"hello")

    assert made.kernel.writes == [b"hello"]


async def test_whole_calls_go_out_in_order(nursery: trio.Nursery) -> None:
    """Calls of several tasks are not mixed, and each returns when its own bytes are written."""
    made = Fixture(nursery, room=2)
    done: list[bytes] = []

    async def send(data: bytes) -> None:
        await made.send_all(data)
        done.append(data)

    for data in (b"aaaa", b"bbbb", b"cccc"):
        nursery.start_soon(send, data)
        await settle()
    assert (made.kernel.written, done) == (b"aa", [])
    made.kernel.make_room(4)
    await settle()
    assert (made.kernel.written, done) == (b"aaaabb", [b"aaaa"])
    made.kernel.make_room(100)
    await settle()
    assert (made.kernel.written, sorted(done)) == (b"aaaabbbbcccc", [b"aaaa", b"bbbb", b"cccc"])


@pytest.mark.parametrize("first", [b"", b"first."])
async def test_cancelled_before_its_first_byte(nursery: trio.Nursery, first: bytes) -> None:
    """A send that was cancelled in the queue, or at its head, leaves nothing; others move up."""
    made = Fixture(nursery, room=0)
    if first:
        nursery.start_soon(made.send_all, first)
        await settle()
    with trio.CancelScope() as scope:
        nursery.start_soon(cancel_when_settled, scope)
        await made.send_all(b"never.")
    nursery.start_soon(made.send_all, b"last.")
    await settle()
    made.kernel.make_room(100)
    await settle()

    assert scope.cancelled_caught
    assert made.kernel.written == first + b"last."


async def test_cancelled_after_its_first_byte(nursery: trio.Nursery) -> None:
    """A send that was cancelled half-way is still written to its end: the stream stays whole."""
    made = Fixture(nursery, room=3)
    with trio.CancelScope() as scope:
        nursery.start_soon(cancel_when_settled, scope)
        await made.send_all(b"half-way.")
    nursery.start_soon(made.send_all, b"next.")
    await settle()
    made.kernel.make_room(100)
    await settle()

    assert scope.cancelled_caught
    assert made.kernel.written == b"half-way.next."


async def test_broken_while_waiting(nursery: trio.Nursery) -> None:
    """All who wait learn that the peer is gone, later callers too, and the owner hears it once."""
    made = Fixture(nursery, room=1)
    raised: list[str] = []

    async def send(data: bytes) -> None:
        try:
            await made.send_all(data)
        except trio.BrokenResourceError as exc:
            raised.append(str(exc))

    nursery.start_soon(send, b"one")
    nursery.start_soon(send, b"two")
    await settle()
    made.kernel.break_off()
    await settle()
    await send(b"three")

    assert raised == ["the connection was reset"] * 3
    assert made.outbox.is_broken
    assert made.broken == 1
    with trio.fail_after(PATIENCE):
        await made.outbox.wait_empty()


async def test_broken_at_once(nursery: trio.Nursery) -> None:
    """A send that finds the peer gone says so."""
    made = Fixture(nursery, room=100)
    made.kernel.break_off()
    with pytest.raises(trio.BrokenResourceError, match=r"^the connection was reset$"):
        await made.send_all(b"x")

    assert made.broken == 1


async def test_wait_empty(nursery: trio.Nursery) -> None:
    """It returns when everything is written, also what came while it waited."""
    made = Fixture(nursery, room=0)
    waited = trio.Event()

    async def wait() -> None:
        await made.outbox.wait_empty()
        waited.set()

    nursery.start_soon(made.send_all, b"aa")
    await settle()
    nursery.start_soon(wait)
    await settle()
    nursery.start_soon(made.send_all, b"bb")
    await settle()
    made.kernel.make_room(3)
    await settle()
    assert not waited.is_set()
    made.kernel.make_room(1)
    await settle()
    assert waited.is_set()
