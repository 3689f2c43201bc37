"""What an event worker is told before anything else: who it is, and its descriptors."""

from __future__ import annotations

import json
import socket
import struct
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

_SIZE: Final = struct.Struct("=Q")
_MAX_FDS: Final = 253
"""Descriptors that Linux lets travel in one message."""


@attrs.frozen(kw_only=True)
class Boot:
    """Numbers and texts for a new event worker, and the descriptors that are its own then."""

    plan: str
    """A `Plan`, as JSON."""
    worker_id: int
    seat: int
    """Its place in `Room`."""
    addresses: tuple[str, ...]
    """Of the listening sockets, in their order."""

    def send(
        self,
        sock: socket.socket,
        *,
        questions: socket.socket,
        lifeline: int,
        room: int,
        stack: int,
        listening: Sequence[int],
    ) -> bytes:
        """Send the descriptors; what is returned must be sent after them."""
        body = json.dumps(attrs.asdict(self)).encode()
        fds = [questions.fileno(), lifeline, room, stack, *listening]
        socket.send_fds(sock, [_SIZE.pack(len(body))], fds)
        return body

    @classmethod
    def receive(cls, sock: socket.socket) -> tuple[Self, list[int]]:
        """The boot and the descriptors, in the order of `send`; the socket blocks.

        Raises:
          EOFError: if the manager is dead already.
        """
        head, fds, _, _ = socket.recv_fds(sock, _SIZE.size, _MAX_FDS)
        if len(head) < _SIZE.size:
            raise EOFError("the manager is gone")
        (size,) = _SIZE.unpack(head)
        body = b""
        while len(body) < size:
            more = sock.recv(size - len(body))
            if not more:
                raise EOFError("the manager is gone")
            body += more
        values = json.loads(body)
        values["addresses"] = tuple(values["addresses"])
        return cls(**values), fds
