"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import trio

# Of the BSDs and macOS: a struct xucred, which begins with a version and the uid.
_SOL_LOCAL: Final = 0
_LOCAL_PEERCRED: Final = 1
_XUCRED: Final = struct.Struct("Ii")
_XUCRED_SIZE: Final = 128


def uid_of_peer(connection: socket.socket | trio.socket.SocketType) -> int | None:
    """The user whose process has connected, None where the system does not tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is not None:
        credentials = struct.Struct("3i")  # pid, uid, gid
        raw = connection.getsockopt(socket.SOL_SOCKET, option, credentials.size)
        uid: int = credentials.unpack(raw)[1]
        return uid
    if sys.platform.startswith(("darwin", "freebsd")):
        raw = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_SIZE)
        return int(_XUCRED.unpack_from(raw)[1])
    return None
