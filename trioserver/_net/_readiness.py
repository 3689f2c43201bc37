"""One edge-triggered epoll for all connections of an event worker.

Trio waits for the epoll's own descriptor, and one system call then tells of every socket on which
something has happened; a wait for one socket costs none. Rules, each learnt by experiment:

1. An edge comes once. *Readable* holds until a read has found nothing more, and it is cleared
   before that read and not after, or an edge in between would be lost.
2. A socket is unregistered before it is closed: a copy of it in another process would go on sending
   events under a number that the next socket gets.
3. An event may be of a socket that was closed earlier in the same batch, whose number names a new
   socket by now. To find a new socket readable or writable for nothing does no harm; a reset counts
   only if the socket itself confirms it.
4. A waiting task is forgotten before it is rescheduled, and by its abort function, or a cancelled
   task would be woken twice.

Where there is no epoll, `TrioReadiness` (`_readiness_plain`) asks Trio for each wait.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import outcome
import trio

from trioserver._net._readiness_plain import TrioReadiness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HAS_EPOLL: Final = hasattr(select, "epoll") and hasattr(os, "eventfd")
_MAX_EVENTS: Final = 1024
if HAS_EPOLL:
    _INTEREST: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
    _HUNG_UP: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
    _READABLE: Final = select.EPOLLIN | _HUNG_UP
    _WRITABLE: Final = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR


class Watch(Protocol):
    """What is known of one socket; readers and writers clear what they are about to use up."""

    is_readable: bool
    """Whether a read may find something."""
    is_writable: bool
    """Whether a write may succeed."""
    is_hung_up: bool
    """Whether the peer has sent its last byte, so that a read finds the end though no edge came."""

    async def wait_readable(self) -> None:
        """Until ``is_readable``.

        Raises:
          trio.BusyResourceError: if another task waits for it.
          trio.ClosedResourceError: if the watch is closed meanwhile.
        """

    async def wait_writable(self) -> None:
        """Until ``is_writable``; raises as `wait_readable` does."""

    enlisted: object | None
    """Appended to `EpollReadiness.ready` at the next edge or interrupt, and forgotten."""

    def interrupt(self) -> None:
        """Have the wait for readability return now, as if there were something to read."""

    def close(self) -> None:
        """Watch no more, and end the waits; before the socket is closed."""


class Readiness(Protocol):
    """Watches sockets."""

    def watch(self, sock: socket.socket, on_reset: Callable[[], None]) -> Watch:
        """Watch ``sock``.

        Args:
          sock: Non-blocking.
          on_reset: Called when the peer has reset the connection, at once where the system tells;
            elsewhere only reads and writes find out.
        """


@contextmanager
def make_readiness() -> Iterator[Readiness]:
    """The best way that this system has; who makes it runs it, if it is an `EpollReadiness`."""
    if HAS_EPOLL:
        with select.epoll() as epoll, closing(_Bell(epoll)) as bell:
            yield EpollReadiness(epoll, bell)
    else:
        yield TrioReadiness()


class EpollReadiness:
    """Watches sockets by one edge-triggered epoll."""

    def __init__(self, epoll: select.epoll, bell: _Bell) -> None:
        self._epoll = epoll
        self._bell = bell
        self._watches: dict[int, _EpollWatch] = {}
        self._is_waiting = False
        self.ready: deque[Any] = deque()
        """What was enlisted with a socket on which something has happened, in that order."""

    def watch(self, sock: socket.socket, on_reset: Callable[[], None]) -> Watch:
        """See `Readiness.watch`."""
        watch = _EpollWatch(self, sock, on_reset)
        self._watches[sock.fileno()] = watch
        self._epoll.register(sock, _INTEREST)
        return watch

    def forget(self, sock: socket.socket) -> None:
        """Watch ``sock`` no more."""
        del self._watches[sock.fileno()]
        self._epoll.unregister(sock)

    async def run(self) -> None:
        """Pass on what happens, until cancelled."""
        while True:
            await self.wait()

    async def wait(self) -> None:
        """Until something happens, and pass it on, or something is appended to `ready`."""
        self._is_waiting = True
        try:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
        finally:
            self._is_waiting = False
        self.look()

    def append(self, item: object) -> None:
        """Append ``item`` to `ready`, and end the `wait` if there is one."""
        self.ready.append(item)
        if self._is_waiting:
            self._is_waiting = False
            self._bell.ring()

    def look(self) -> None:
        """Pass on what has happened."""
        watches = self._watches
        for fd, events in self._epoll.poll(0, _MAX_EVENTS):
            watch = watches.get(fd)
            if watch is not None:
                watch.happened(events)


class _Bell:
    """Ends a wait for ``epoll``."""

    def __init__(self, epoll: select.epoll) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        epoll.register(self._fd, select.EPOLLIN | select.EPOLLET)

    def ring(self) -> None:
        # Each write is an edge: nobody need read, and 2**64 are not reached.
        os.eventfd_write(self._fd, 1)

    def close(self) -> None:
        os.close(self._fd)


class _EpollWatch:
    """One socket in the epoll."""

    __slots__ = (
        "_on_reset",
        "_reader",
        "_readiness",
        "_sock",
        "_writer",
        "enlisted",
        "is_hung_up",
        "is_readable",
        "is_writable",
    )

    def __init__(
        self, readiness: EpollReadiness, sock: socket.socket, on_reset: Callable[[], None]
    ) -> None:
        self._readiness = readiness
        self._sock = sock
        self._on_reset = on_reset
        self._reader: trio.lowlevel.Task | None = None
        self._writer: trio.lowlevel.Task | None = None
        self.enlisted: object = None
        # The registration itself brings the first edge.
        self.is_readable = False
        self.is_writable = True
        self.is_hung_up = False

    def happened(self, events: int) -> None:
        """Note ``events`` and wake those who wait for them."""
        if events & _READABLE:
            self.is_readable = True
            if events & _HUNG_UP:
                self.is_hung_up = True
            self._wake_reader()
        # Nearly every event says this too, and nearly always it is known.
        if events & _WRITABLE and not self.is_writable:
            self.is_writable = True
            self._wake_writer()
        if events & select.EPOLLERR and self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._on_reset()

    async def wait_readable(self) -> None:
        if self.is_readable:
            return
        if self._reader is not None or self.enlisted is not None:
            raise trio.BusyResourceError("another task is receiving on this connection")
        self._reader = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort_reader)

    async def wait_writable(self) -> None:
        if self.is_writable:
            return
        assert self._writer is None, "one task writes for all"
        self._writer = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort_writer)

    def interrupt(self) -> None:
        self._wake_reader()

    def close(self) -> None:
        self._readiness.forget(self._sock)
        for task in (self._reader, self._writer):
            if task is not None:
                error = trio.ClosedResourceError("this connection is closed")
                trio.lowlevel.reschedule(task, outcome.Error(error))
        self._reader = self._writer = self.enlisted = None

    def _wake_reader(self) -> None:
        if self.enlisted is not None:
            self._readiness.append(self.enlisted)
            self.enlisted = None
        task, self._reader = self._reader, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def _wake_writer(self) -> None:
        task, self._writer = self._writer, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def _abort_reader(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _abort_writer(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._writer = None
        return trio.lowlevel.Abort.SUCCEEDED
