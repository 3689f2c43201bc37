"""Listening sockets that were passed to the process when it was started, as systemd does it.

See sd_listen_fds(3): ``LISTEN_PID`` says for whom they are, ``LISTEN_FDS`` how many from descriptor
3 on, and ``LISTEN_FDNAMES`` what they are called.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from trioserver._errors import AddressError

if TYPE_CHECKING:
    from trioserver._addresses import FdAddress

_FIRST_FD: Final = 3

# Names by descriptor, when they have been looked for: children must not see the variables.
_passed: dict[int, str] | None = None


def passed_sockets(address: FdAddress) -> list[socket.socket]:
    """The sockets that ``address`` stands for.

    Raises:
      AddressError: if there are none, or one is not a stream socket that listens.
    """
    passed = _look_for_them()
    if address.name:
        fds = [fd for fd, name in passed.items() if address.name in {str(fd), name}]
    else:
        fds = list(passed)
    if not fds:
        raise AddressError(f"{address}: no such socket was passed (LISTEN_FDS)")
    return [_listening(fd, address) for fd in fds]


def _look_for_them() -> dict[int, str]:
    global _passed  # noqa: PLW0603  # the process's own, and so are its variables
    if _passed is None:
        count = os.environ.pop("LISTEN_FDS", "")
        pid = os.environ.pop("LISTEN_PID", "")
        names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
        if pid != str(os.getpid()) or not count.isdigit():
            count = "0"
        names += [""] * int(count)
        _passed = {_FIRST_FD + number: names[number] for number in range(int(count))}
        for fd in _passed:
            with suppress(OSError):  # which `_listening` will say
                os.set_inheritable(fd, False)
    return _passed


def _listening(fd: int, address: FdAddress) -> socket.socket:
    try:
        # A descriptor of its own, so that the same one can be asked for again.
        sock = socket.socket(fileno=os.dup(fd))
    except OSError as exc:
        raise AddressError(f"{address}: descriptor {fd} is not a socket") from exc
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        sock.close()
        raise AddressError(f"{address}: descriptor {fd} is not a listening stream socket")
    sock.setblocking(False)
    return sock
