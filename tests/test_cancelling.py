"""What is known of the cancel scopes of a Trio task, and what is done where Trio does not tell."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import pytest
import trio
from net import receive_exactly, serving

from trioserver import _cancelling
from trioserver._net import _outbox

if TYPE_CHECKING:
    from trioserver._net._connection import Connection


def without_status(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module as it is where a `trio.lowlevel.Task` has no status that we know."""
    spec = importlib.util.spec_from_file_location("cancelling_elsewhere", _cancelling.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patch:
        patch.setattr("trio.lowlevel.Task", object)
        spec.loader.exec_module(module)
    return module


def test_this_trio_tells() -> None:
    """If this fails, Trio has changed: all works, but joined replies have lost their fast path."""
    assert _cancelling.TELLS_STATUS


@pytest.mark.parametrize("tells", [True, False])
async def test_whether_it_is_cancelled(monkeypatch: pytest.MonkeyPatch, *, tells: bool) -> None:
    """By the scope itself, by one around it, and not through a shield."""
    module = _cancelling if tells else without_status(monkeypatch)
    assert module.TELLS_STATUS is tells
    assert not module.is_cancelled()
    with trio.CancelScope() as outer, trio.CancelScope() as inner:  # noqa: ASYNC100  # no wait
        outer.cancel()
        assert module.is_cancelled()
        inner.shield = True
        assert not module.is_cancelled()
        inner.cancel()
        assert module.is_cancelled()
    assert not module.is_cancelled()


@pytest.mark.parametrize("tells", [True, False])
async def test_the_innermost_scope(monkeypatch: pytest.MonkeyPatch, *, tells: bool) -> None:
    """It is another one inside, if Trio tells, and the same afterwards."""
    module = _cancelling if tells else without_status(monkeypatch)
    task = trio.lowlevel.current_task()
    before = module.innermost_scope(task)
    with trio.CancelScope():  # noqa: ASYNC100  # only to be in it
        assert (module.innermost_scope(task) is before) is not tells
    assert module.innermost_scope(task) is before


async def test_replies_join_also_where_trio_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the longer way, which asks Trio's public functions."""
    monkeypatch.setattr(_outbox, "TELLS_STATUS", False)
    joined: list[int] = []

    async def on_receive(stream: Connection, frame: bytes) -> None:
        await stream.send_frame(frame)
        assert stream._outbox.room == 0
        joined.append(len(stream._outbox.joined))

    async with serving(on_receive=on_receive) as net:
        client = net.connect()
        await client.send_all(b"1\n2\n3\n4\n")
        assert await receive_exactly(client, 8) == b"1\n2\n3\n4\n"
    assert joined == [1, 2, 3, 0]
