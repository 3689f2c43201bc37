"""The door by which a task worker comes to its dispatcher: a private socket, and who may pass.

The socket lies in a directory that only this user can enter, for as long as its worker boots. Who
knocks must know the worker's token, and be a process of this user.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from trioserver._peers import uid_of_peer
from trioserver._tasks._wire import HELLO

if TYPE_CHECKING:
    from collections.abc import Iterator

_HELLO_TIME: Final = 5.0
"""Seconds in which whoever knocks must say who it is."""
_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108  # short, in memory, and only a place for 0700 directories
_PREFIX: Final = "trioserver-"
_SOCKET: Final = "worker"
_STALE_AFTER: Final = 60.0
"""Seconds after which a door that nobody keeps is not one that is just being opened."""


class Door:
    """Lets one worker in.

    Args:
      listener: Where it knocks.
      address: The path that leads there.
    """

    def __init__(self, listener: trio.socket.SocketType, address: str) -> None:
        self._listener = listener
        self.address = address
        self.token = secrets.token_bytes(32)

    async def admit(self) -> tuple[socket.socket, int]:
        """Wait for the worker: its connection, non-blocking, and its pid."""
        while True:
            connection, _ = await self._listener.accept()
            with connection:
                pid = await self._pid_of(connection)
                if pid is not None:
                    sock = socket.socket(fileno=connection.detach())
                    sock.setblocking(False)
                    return sock, pid

    async def _pid_of(self, connection: trio.socket.SocketType) -> int | None:
        """The pid that the worker says it has, None if this is not the worker."""
        hello = b""
        with trio.move_on_after(_HELLO_TIME):
            while len(hello) < HELLO.size:
                try:
                    data = await connection.recv(HELLO.size - len(hello))
                except ConnectionError:
                    return None
                if not data:
                    return None
                hello += data
        if len(hello) < HELLO.size:
            return None
        token, pid = HELLO.unpack(hello)
        is_worker = secrets.compare_digest(token, self.token) and _is_ours(connection)
        return pid if is_worker else None


@contextmanager
def open_door() -> Iterator[Door]:
    """A door, and its directory, both gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=_base()) as directory:
        address = os.path.join(directory, _SOCKET)
        listener = socket.socket(socket.AF_UNIX)
        with trio.socket.from_stdlib_socket(listener) as trio_listener:
            listener.bind(address)
            listener.listen(1)
            yield Door(trio_listener, address)


def remove_stale_doors() -> None:
    """Remove what servers of this user have left behind that were killed while workers booted."""
    with os.scandir(_base() or tempfile.gettempdir()) as entries:
        doors = [entry for entry in entries if entry.name.startswith(_PREFIX)]
    for door in doors:
        try:
            found = door.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if found.st_uid == os.getuid() and found.st_mtime < time.time() - _STALE_AFTER:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.setblocking(False)
                if probe.connect_ex(os.path.join(door.path, _SOCKET)) != 0:
                    shutil.rmtree(door.path, ignore_errors=True)


def _base() -> str | None:
    """Where the directories are; None for where temporary files are."""
    return _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else None


def _is_ours(connection: trio.socket.SocketType) -> bool:
    """Whether the peer is a process of this user, where the system tells."""
    uid = uid_of_peer(connection)
    # Where it does not, the directory and the token have kept strangers out.
    return uid is None or uid == os.getuid()
