"""Bound sockets, listened on and accepted from.

A client's connect succeeds as soon as a socket listens. So `_binding` comes first in a start, where
an address in use is found, and `Listener.listen` last: then a connection is proof of readiness.
"""

from __future__ import annotations

import errno
import logging
import math
import select
import socket
from typing import TYPE_CHECKING, Final

import trio

from trioserver._inheritance import InheritedSocket, remove_socket_file
from trioserver._net._address_errors import refuse_address

if TYPE_CHECKING:
    from trioserver._net._connections import Connections

logger = logging.getLogger("trioserver.server")

ACCEPT_BATCH: Final = 64
"""Connections that are accepted before others have their turn."""
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_MISUSED: Final = {errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK}
"""Errors of accept that are ours; all others are of the client, who has left before."""
_GIVE_WAY: Final = 0.001
_GIVE_WAYS: Final = 50
_TAKE_ALL: Final = 1.0
"""Seconds for which a new connection is left to an event worker that has fewer, how often in a row,
and for how long it is not if nobody has come for it: those that have fewer are busy.

All of them wake for it, since they share the socket, and the first to come takes it: of 1,000
connections over 4 workers, 66 to 633 went to one (one at a time), 99 to 485 (50 at a time). With
this, 249 to 251 did; 1,000 at once took 0.4 s and not 0.2.
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
        self._takes_all_until = -math.inf
        self.address = address

    def listen(self, backlog: int) -> None:
        """Let clients connect.

        Raises:
          AddressError: if someone else has begun to listen there since.
        """
        try:
            self._sock.listen(backlog)
        except OSError as exc:
            refuse_address(self.address, exc)

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
            while connections.behind >= ACCEPT_BATCH:  # noqa: ASYNC110  # the relay never sleeps then
                # Who has come before must not wait for all who come; each pass serves some.
                await trio.lowlevel.checkpoint()
            await trio.lowlevel.wait_readable(self._sock)
            await self._give_way(connections)
            try:
                accepted, _ = self._sock.accept()
                if is_exhausted:
                    logger.info("accepting on %s again", self.address)
                    is_exhausted = False
                self._add(accepted, connections)
                self._accept_more_into(connections)
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

    async def _give_way(self, connections: Connections) -> None:
        """Let an event worker that has fewer connections take the one that is there."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        for _ in range(_GIVE_WAYS):
            if not self._is_turn_of_others(connections):
                return
            await trio.sleep(_GIVE_WAY)
            if not poll.poll(0):
                return
        self._takes_all_until = trio.current_time() + _TAKE_ALL

    def _is_turn_of_others(self, connections: Connections) -> bool:
        return connections.is_ahead() and trio.current_time() >= self._takes_all_until

    def _accept_more_into(self, connections: Connections) -> None:
        """Accept those that wait behind the first one, as far as it is this event worker's turn."""
        for _ in range(ACCEPT_BATCH - 1):
            if connections.is_full or self._is_turn_of_others(connections):
                return
            accepted, _ = self._sock.accept()
            self._add(accepted, connections)

    def _add(self, sock: socket.socket, connections: Connections) -> None:
        try:
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            connections.add_socket(sock)
        except OSError as exc:
            logger.warning("dropped a connection on %s: %s", self.address, exc.strerror)
            sock.close()
