"""All addresses of ``bind``, bound before anything else is started, where errors are found."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from trioserver._addresses import FdAddress, TcpAddress, UnixAddress, parse_address
from trioserver._errors import AddressError
from trioserver._net._activation import passed_sockets
from trioserver._net._address_errors import refuse_address
from trioserver._net._listeners import Listener
from trioserver._net._unix_sockets import open_unix

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trioserver._inheritance import InheritedSocket

_UNAVAILABLE: Final = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
"""Errors of an address that this machine does not have, such as ``::1`` without IPv6."""


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
                    refuse_address(str(address), exc)
                missing = exc  # one of a name's addresses is enough
                continue
            unbound.pop_all()
        # The other addresses of a name get the port that was picked for the first.
        host, port = sock.getsockname()[:2]
        listeners.append(Listener(sock, str(TcpAddress(host, port)), bind=str(address)))
        stack.callback(listeners[-1].end)
    if not listeners and missing is not None:
        refuse_address(str(address), missing)
    return listeners


def _bind_unix(address: UnixAddress, stack: ExitStack) -> Listener:
    sock, file = open_unix(address)
    listener = Listener(sock, str(address), bind=str(address), file=file)
    stack.callback(listener.end)
    return listener
