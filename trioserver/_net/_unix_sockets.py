"""Unix sockets bound to a path, and the files that come and go with them."""

from __future__ import annotations

import os
import socket
import stat
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trioserver._errors import AddressError
from trioserver._inheritance import remove_socket_file
from trioserver._net._address_errors import refuse_address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trioserver._addresses import UnixAddress


@contextmanager
def bind_unix(address: UnixAddress, *, mode: int | None = None) -> Iterator[socket.socket]:
    """Bind a non-blocking Unix socket; at the end it is closed, and its file removed if still ours.

    The file of a server that is gone is replaced.

    Args:
      address: Where.
      mode: Who may connect, as the permissions of a file; by the umask unless given.

    Raises:
      AddressError: if that cannot be, or a server is there.
    """
    sock, ours = open_unix(address, mode)
    with sock:
        try:
            yield sock
        finally:
            remove_socket_file(address.path, ours)


def open_unix(
    address: UnixAddress, mode: int | None = None
) -> tuple[socket.socket, tuple[int, int]]:
    """A bound socket and the identity of its file; see `bind_unix`."""
    _remove_stale(address)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        if mode is not None and sys.platform == "linux":
            # The file gets the socket's own mode, so there is no moment in which it has more.
            os.fchmod(sock.fileno(), mode)
        sock.bind(address.path)
        if mode is not None:
            os.chmod(address.path, mode)
        return sock, _identity(os.stat(address.path))
    except OSError as exc:
        sock.close()
        refuse_address(str(address), exc)


def _remove_stale(address: UnixAddress) -> None:
    """Remove the socket file of a server that is gone; refuse everything else that is there."""
    try:
        there = os.stat(address.path)
    except OSError:  # nothing is there, or bind will say what is wrong with the way to it
        return
    if not stat.S_ISSOCK(there.st_mode):
        raise AddressError(f"{address}: the file exists and is not a socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:
            remove_socket_file(address.path, _identity(there))
            return
        except BlockingIOError:  # its backlog is full: someone lives there
            pass
        except OSError as exc:
            refuse_address(str(address), exc)
    raise AddressError(f"{address}: address already in use")


def _identity(there: os.stat_result) -> tuple[int, int]:
    return there.st_dev, there.st_ino
