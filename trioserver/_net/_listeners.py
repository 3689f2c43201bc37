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

from trioserver._addresses import FdAddress, TcpAddress, UnixAddress, parse_address
from trioserver._errors import AddressError
from trioserver._inheritance import InheritedSocket, remove_socket_file
from trioserver._net._activation import passed_sockets

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
_GIVE_WAY: Final = 0.001
"""Seconds for which a new connection is left to an event worker that has fewer.

All of them wake for it, since they share the socket, and the first to come takes it: of 1,000
connections over 4 workers, 66 to 633 went to one (one at a time), 99 to 485 (50 at a time). With
this, 249 to 251 did; 1,000 at once took 0.4 s and not 0.2. Should those that have fewer be busy,
who has more takes it after all.
"""
_RETRY: Final = 0.1
"""Seconds until accepting is tried again when the process or the system has no more descriptors."""


class Listener:
    """A bound socket.

    Args:
      sock: The socket; the listener closes it.
      address: As ``bind`` has it, with the port that was picked for port 0.
      bind: The address in ``bind`` that it belongs to.
      file: Device and inode of the socket's file, which is removed at the end.
    """

    def __init__(
        self,
        sock: socket.socket,
        address: str,
        *,
        bind: str = "",
        file: tuple[int, int] | None = None,
    ) -> None:
        self._sock = sock
        self._bind = bind
        self._file = file
        self._is_handed_over = False
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

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._sock.fileno()

    def close(self) -> None:
        """Refuse clients from now on; nobody may be accepting."""
        self._sock.close()

    def remove(self) -> None:
        """Close it, and remove its file."""
        self._sock.close()
        if self._file is not None:
            remove_socket_file(self.address.removeprefix("unix:"), self._file)
            self._file = None

    def hand_over(self) -> InheritedSocket:
        """Leave it open at the end, also for a program that this process executes."""
        self._sock.set_inheritable(True)
        self._is_handed_over = True
        return InheritedSocket(self._sock.fileno(), self._bind, self.address, self._file)

    def end(self) -> None:
        """Remove it unless it was handed over."""
        if not self._is_handed_over:
            self.remove()

    async def accept_into(self, connections: Connections) -> None:
        """Accept until cancelled; while ``connections`` are full, clients wait in the backlog."""
        is_exhausted = False
        while True:
            await connections.wait_room()
            await trio.lowlevel.wait_readable(self._sock)
            if connections.is_ahead():
                await trio.sleep(_GIVE_WAY)
            try:
                for number in range(ACCEPT_BATCH):
                    if connections.is_full or (number and connections.is_ahead()):
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
def bind_all(
    addresses: Sequence[str], inherited: Sequence[InheritedSocket] = ()
) -> Iterator[list[Listener]]:
    """Bind every address; at the end all sockets are closed, and Unix sockets' files removed.

    A host name may stand for several addresses, each of which gets a listener.

    Args:
      addresses: As ``bind`` has them.
      inherited: Sockets that are bound already, and are used where their address still is wanted.

    Raises:
      AddressError: if one cannot be bound; the message names it and says why.
    """
    with ExitStack() as stack:
        ready: dict[str, list[Listener]] = {}
        for one in inherited:
            sock = socket.socket(fileno=one.fd)
            listener = Listener(sock, one.address, bind=one.bind, file=one.file)
            stack.callback(listener.end)
            ready.setdefault(one.bind, []).append(listener)
        listeners: list[Listener] = []
        for text in addresses:
            address = parse_address(text)
            found = ready.pop(str(address), None)
            if found is None:
                found = _bind(address, stack)
            listeners += found
        for unwanted in ready.values():
            for listener in unwanted:
                listener.remove()
        yield listeners


def _bind(address: TcpAddress | UnixAddress | FdAddress, stack: ExitStack) -> list[Listener]:
    if isinstance(address, TcpAddress):
        return _bind_tcp(address, stack)
    if isinstance(address, UnixAddress):
        return [_bind_unix(address, stack)]
    listeners = []
    for sock in passed_sockets(address):
        name = sock.getsockname()
        if sock.family == socket.AF_UNIX:
            where = "unix:" + os.fsdecode(name).replace("\0", "@")  # abstract ones begin with it
        else:
            where = str(TcpAddress(*name[:2]))
        listeners.append(Listener(sock, where, bind=str(address)))
        stack.callback(listeners[-1].end)
    return listeners


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
        with ExitStack() as unbound:
            try:
                sock = unbound.enter_context(socket.socket(family, kind, protocol))
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
            unbound.pop_all()
        # The other addresses of a name get the port that was picked for the first.
        host, port = sock.getsockname()[:2]
        listeners.append(Listener(sock, str(TcpAddress(host, port)), bind=str(address)))
        stack.callback(listeners[-1].end)
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
    sock, ours = _open_unix(address, mode)
    with sock:
        try:
            yield sock
        finally:
            remove_socket_file(address.path, ours)


def _bind_unix(address: UnixAddress, stack: ExitStack) -> Listener:
    sock, file = _open_unix(address)
    listener = Listener(sock, str(address), bind=str(address), file=file)
    stack.callback(listener.end)
    return listener


def _open_unix(
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
        _refuse(str(address), exc)


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
            _refuse(str(address), exc)
    raise AddressError(f"{address}: address already in use")


def _identity(there: os.stat_result) -> tuple[int, int]:
    return there.st_dev, there.st_ino


def _refuse(address: str, exc: OSError) -> NoReturn:
    reason = (exc.strerror or str(exc)).lower()
    if exc.errno == errno.EACCES and not address.startswith("unix:"):
        reason += " (ports below 1024 need privileges)"
    raise AddressError(f"{address}: {reason}") from exc
