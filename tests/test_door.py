"""The door by which a task worker comes to its dispatcher."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import trio

from trioserver._tasks import _door
from trioserver._tasks._door import open_door, remove_stale_doors
from trioserver._tasks._wire import HELLO

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_only_the_worker_itself_is_let_in() -> None:
    """Strangers are turned away: nothing at all, a part of the token, a wrong one."""
    with open_door() as door:
        assert os.stat(os.path.dirname(door.address)).st_mode & 0o777 == 0o700

        def knock(hello: bytes) -> bytes:
            with socket.socket(socket.AF_UNIX) as visitor:
                visitor.connect(door.address)
                visitor.sendall(hello)
                return visitor.recv(1) if len(hello) == HELLO.size else b""

        heard: list[bytes] = []

        async def knock_with_all() -> None:
            own = HELLO.pack(door.token, 4711)
            hellos = b"", own[:5], HELLO.pack(b"x" * 32, 1), own
            heard.extend([await trio.to_thread.run_sync(knock, hello) for hello in hellos])

        async with trio.open_nursery() as visitors:
            visitors.start_soon(knock_with_all)
            sock, pid = await door.admit()
            with sock:
                sock.send(b"w")
    assert pid == 4711
    assert heard == [b"", b"", b"", b"w"]
    assert not os.path.exists(os.path.dirname(door.address))  # noqa: ASYNC240  # a moment


def test_what_a_killed_server_has_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old doors that nobody keeps; not new ones, not those of a server that boots, nothing else."""
    monkeypatch.setattr(_door, "_SHARED_MEMORY", str(tmp_path))
    with socket.socket(socket.AF_UNIX) as kept:
        for name in ("trioserver-old", "trioserver-new", "trioserver-kept", "other"):
            (tmp_path / name).mkdir()
            with socket.socket(socket.AF_UNIX) as left:
                (kept if name == "trioserver-kept" else left).bind(str(tmp_path / name / "worker"))
        kept.listen(1)
        for name in ("trioserver-old", "trioserver-kept", "other"):
            os.utime(tmp_path / name, (0, 0))

        remove_stale_doors()

    left_over = sorted(path.name for path in tmp_path.iterdir())
    assert left_over == ["other", "trioserver-kept", "trioserver-new"]
