"""Addresses bound, listened on, and accepted from.

A client's connect succeeds as soon as a socket listens. So `bind_all` comes first in a start, where
an address in use is found, and `Listener.listen` last: then a connection is proof of readiness.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from trioserver._addresses import TcpAddress, UnixAddress, parse_address
from trioserver._errors import AddressError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trioserver._net._connections import Connections

logger = logging.getLogger("trioserver.server")

ACCEPT_BATCH: Final = 64
"""Connections that are accepted before others have their turn."""
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_MISUSED: Final = {errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK}
"""Errors of accept that are ours; all others are of the client, who has left before."""
_UNAVAILABLE: Final = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
"""Errors of an address that this machine does not have, such as ``::1`` without IPv6."""
_RETRY: Final = 0.1
"""Seconds until accepting is tried again when the process or the system has no more descriptors."""


class Listener:
    """A bound socket.

    Args:
      sock: The socket; the listener closes it.
      address: As ``bind`` has it, with the port that was picked for port 0.
    """

    def __init__(self, sock: socket.socket, address: str) -> None:
        self._sock = sock
        self.address = address

    def listen(self, backlog: int) -> None:
        """Let clients connect.

        Raises:
          AddressError: if someone else has begun to listen there since.
        """
        try:
            self._sock.listen(backlog)
        except OSError as exc:
            _refuse(self.address, exc)

    def close(self) -> None:
        """Refuse clients from now on; nobody may be accepting."""
        self._sock.close()

    async def accept_into(self, connections: Connections) -> None:
        """Accept until cancelled; while ``connections`` are full, clients wait in the backlog."""
        is_exhausted = False
        while True:
            await connections.wait_room()
            await trio.lowlevel.wait_readable(self._sock)
            try:
                for _ in range(ACCEPT_BATCH):
                    if connections.is_full:
                        break
                    accepted, _ = self._sock.accept()
                    if is_exhausted:
                        logger.info("accepting on %s again", self.address)
                        is_exhausted = False
                    self._add(accepted, connections)
            except BlockingIOError:
                continue
            except OSError as exc:
                if exc.errno in _MISUSED:
                    raise
                if exc.errno not in _EXHAUSTED:
                    continue
                if not is_exhausted:
                    logger.warning("cannot accept on %s for now: %s", self.address, exc.strerror)
                    is_exhausted = True
                await trio.sleep(_RETRY)

    def _add(self, sock: socket.socket, connections: Connections) -> None:
        try:
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            connections.add_socket(sock)
        except OSError as exc:
            logger.warning("dropped a connection on %s: %s", self.address, exc.strerror)
            sock.close()


@contextmanager
def bind_all(addresses: Sequence[str]) -> Iterator[list[Listener]]:
    """Bind every address; at the end all sockets are closed, and Unix sockets' files removed.

    A host name may stand for several addresses, each of which gets a listener.

    Raises:
      AddressError: if one cannot be bound; the message names it and says why.
    """
    with ExitStack() as stack:
        listeners: list[Listener] = []
        for text in addresses:
            address = parse_address(text)
            if isinstance(address, TcpAddress):
                listeners += _bind_tcp(address, stack)
            else:
                listeners.append(Listener(stack.enter_context(bind_unix(address)), str(address)))
        yield listeners


def _bind_tcp(address: TcpAddress, stack: ExitStack) -> list[Listener]:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as exc:
        raise AddressError(f"{address}: {(exc.strerror or str(exc)).lower()}") from exc
    except UnicodeError as exc:  # no host name can be like this
        raise AddressError(f"{address}: not a host name") from exc
    port = address.port
    listeners: list[Listener] = []
    missing: OSError | None = None
    for family, kind, protocol, _, sockaddr in dict.fromkeys(found):
        try:
            sock = stack.enter_context(socket.socket(family, kind, protocol))
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, True)
            sock.bind((sockaddr[0], port, *sockaddr[2:]))
        except OSError as exc:
            if exc.errno not in _UNAVAILABLE:
                _refuse(str(address), exc)
            missing = exc  # one of a name's addresses is enough
            continue
        # The other addresses of a name get the port that was picked for the first.
        host, port = sock.getsockname()[:2]
        listeners.append(Listener(sock, str(TcpAddress(host, port))))
    if not listeners and missing is not None:
        _refuse(str(address), missing)
    return listeners


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
    path = address.path
    _remove_stale(address)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        try:
            if mode is not None and sys.platform == "linux":
                # The file gets the socket's own mode, so there is no moment in which it has more.
                os.fchmod(sock.fileno(), mode)
            sock.bind(path)
            if mode is not None:
                os.chmod(path, mode)
        except OSError as exc:
            _refuse(str(address), exc)
        ours = os.stat(path)
        try:
            yield sock
        finally:
            _remove_if(path, ours)


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
            _remove_if(address.path, there)
            return
        except BlockingIOError:  # its backlog is full: someone lives there
            pass
        except OSError as exc:
            _refuse(str(address), exc)
    raise AddressError(f"{address}: address already in use")


def _remove_if(path: str, known: os.stat_result) -> None:
    """Remove ``path`` if it still is the file that is ``known``."""
    try:
        if os.path.samestat(os.stat(path), known):
            os.unlink(path)
    except FileNotFoundError:
        return


def _refuse(address: str, exc: OSError) -> NoReturn:
    reason = (exc.strerror or str(exc)).lower()
    if exc.errno == errno.EACCES and not address.startswith("unix:"):
        reason += " (ports below 1024 need privileges)"
    raise AddressError(f"{address}: {reason}") from exc
