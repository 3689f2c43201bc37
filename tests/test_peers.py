"""Who is at the other end of a Unix socket, on each system."""

from __future__ import annotations

import os
import socket
import struct
import sys

import pytest

from trioserver._peers import uid_of_peer


class Peer(socket.socket):
    """What getsockopt says on macOS and FreeBSD."""

    def getsockopt(self, level: int, name: int, size: int = 0) -> bytes:  # type: ignore[override]  # of bytes only
        assert (level, name) == (0, 1)
        return struct.pack("IIh", 0, 501, 1)[:size].ljust(76, b"\0")


def test_a_peer_of_our_own() -> None:
    """This system tells."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert uid_of_peer(ours) == os.getuid()


@pytest.mark.parametrize(
    ("platform", "uid"), [("darwin", 501), ("freebsd14", 501), ("sunos5", None)]
)
def test_other_systems(monkeypatch: pytest.MonkeyPatch, platform: str, uid: int | None) -> None:
    """By LOCAL_PEERCRED; None where there is no way."""
    monkeypatch.delattr(socket, "SO_PEERCRED")
    monkeypatch.setattr(sys, "platform", platform)
    with Peer(socket.AF_UNIX) as peer:
        assert uid_of_peer(peer) == uid
