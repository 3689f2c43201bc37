"""The control socket, where those who operate a server ask and tell it things.

See `_control_answers` for what. Requests and answers are JSON objects, one a line. Rules:

1. Only this user and root are heard, by three fences: the directory, which nobody else may enter;
   the socket's own mode; and the uid of whoever has connected.
2. Whatever a client does costs nobody but itself: requests have a limit, everything has a time, and
   there are only so many clients.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import trio

from trioserver._addresses import UnixAddress, parse_address
from trioserver._bare import Body
from trioserver._control_answers import answer, refusal
from trioserver._errors import AddressError
from trioserver._net._unix_sockets import bind_unix
from trioserver._peers import uid_of_peer

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Iterator

    from trioserver._controls import Controls

logger = logging.getLogger("trioserver.server")

MAX_REQUEST: Final = 64 * 1024
"""Bytes of a line."""
MAX_CLIENTS: Final = 16
CLIENT_TIME: Final = 10.0
"""Seconds in which a client must have sent a line, and have read an answer."""
_PRIVATE_DIRECTORY: Final = 0o700
_PRIVATE_FILE: Final = 0o600
_RETRY: Final = 0.1
"""Seconds until accepting is tried again when there are no more descriptors."""
_MISUSED: Final = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}
_SHOWN: Final = 80
"""Bytes of nonsense that are logged."""


@asynccontextmanager
async def open_control(address: str, controls: Controls) -> AsyncIterator[None]:
    """Answer at ``address`` while the block runs, also while the server stops.

    Args:
      address: As `Settings.control` has it.
      controls: The server.

    Raises:
      AddressError: if that cannot be; the message names the address and says why.
    """
    with bind_control(address) as listener:
        body = Body()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listener.serve, controls)  # noqa: ASYNC113  # clients can wait
                with body:
                    yield
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            cause = body.without_groups(group)
            if cause is group:
                raise
        else:
            return
        raise cause


@contextmanager
def bind_control(address: str) -> Iterator[ControlListener]:
    """The socket of `open_control`; who connects waits until `ControlListener.serve`.

    Raises:
      AddressError: as above.
    """
    parsed = parse_address(address)
    if not isinstance(parsed, UnixAddress):
        raise AddressError(f"{address}: a control address is 'unix:/path'")
    _make_private(os.path.dirname(parsed.path), parsed)
    with bind_unix(parsed, mode=_PRIVATE_FILE) as sock:
        # At once, or another server that starts would take this for a stale one.
        sock.listen(MAX_CLIENTS)
        yield ControlListener(sock, parsed)


def _make_private(directory: str, address: UnixAddress) -> None:
    """Make the directory, or see that it is ours alone."""
    try:
        os.mkdir(directory, _PRIVATE_DIRECTORY)
    except FileExistsError:
        pass
    except OSError as exc:
        raise AddressError(f"{address}: cannot make {directory}: {_words(exc)}") from exc
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode):
        raise AddressError(f"{address}: {directory} is not a directory")
    if found.st_uid != os.geteuid():
        raise AddressError(f"{address}: {directory} belongs to another user (uid {found.st_uid})")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise AddressError(
            f"{address}: others may enter {directory} (mode {mode:04o}); it must have mode 0700"
        )


class ControlListener:
    """Answers clients.

    Args:
      sock: Listening, non-blocking; closed by whoever opened it.
      address: Where.
    """

    def __init__(self, sock: socket.socket, address: UnixAddress) -> None:
        self._sock = sock
        self._address = address
        self._clients = 0

    async def serve(self, controls: Controls) -> None:
        """Answer until cancelled."""
        async with trio.open_nursery() as clients:
            while True:
                await trio.lowlevel.wait_readable(self._sock)
                try:
                    accepted, _ = self._sock.accept()
                except BlockingIOError:
                    continue
                except OSError as exc:
                    if exc.errno in _MISUSED:
                        raise
                    logger.warning("cannot accept on %s for now: %s", self._address, _words(exc))
                    await trio.sleep(_RETRY)
                    continue
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
                # Counted here: the task of the last one may not have run yet.
                self._clients += 1
                clients.start_soon(self._serve_client, stream, controls)

    async def _serve_client(self, stream: trio.SocketStream, controls: Controls) -> None:
        try:
            async with stream:
                uid = uid_of_peer(stream.socket)
                if uid not in {os.geteuid(), 0}:
                    logger.warning(
                        "%s: turned away a client of another user (uid %s)", self._address, uid
                    )
                elif self._clients > MAX_CLIENTS:
                    self._log("there are too many clients")
                    await self._send(stream, refusal(f"{MAX_CLIENTS} other clients are connected"))
                else:
                    await self._converse(stream, controls)
        except trio.BrokenResourceError:
            logger.debug("%s: a client has left before its answer", self._address)
        except OSError as exc:  # of what is asked about its peer
            self._log(_words(exc))
        finally:
            self._clients -= 1

    async def _converse(self, stream: trio.SocketStream, controls: Controls) -> None:
        received = bytearray()
        while True:
            line = await self._receive_line(stream, received)
            if line is None:
                return
            try:
                request = json.loads(line)
            except (ValueError, RecursionError):
                self._log("what came is not JSON: %r", line[:_SHOWN])
                await self._send(stream, refusal("a request is a JSON object in one line"))
                return
            if not await self._send(stream, await answer(request, controls)):
                return

    async def _receive_line(self, stream: trio.SocketStream, received: bytearray) -> bytes | None:
        """The next line, None if there is none to come; ``received`` is what came behind it."""
        searched = 0
        with trio.move_on_after(CLIENT_TIME) as scope:
            while (end := received.find(b"\n", searched)) < 0:
                searched = len(received)
                if searched > MAX_REQUEST:
                    break
                data = await stream.receive_some(MAX_REQUEST)
                if not data:
                    if received:
                        self._log("a request has no end: %r", bytes(received[:_SHOWN]))
                    return None
                received += data
        if scope.cancelled_caught:
            self._log("no request came for %g s", CLIENT_TIME)
            return None
        if not 0 <= end <= MAX_REQUEST:
            self._log("a request has more than %d bytes", MAX_REQUEST)
            await self._send(stream, refusal(f"a request has at most {MAX_REQUEST} bytes"))
            return None
        line = bytes(received[:end])
        del received[: end + 1]
        return line

    async def _send(self, stream: trio.SocketStream, message: object) -> bool:
        """Send an answer; False if nobody reads it."""
        data = json.dumps(message).encode() + b"\n"
        with trio.move_on_after(CLIENT_TIME) as scope:
            await stream.send_all(data)
        if scope.cancelled_caught:
            self._log("an answer was not read for %g s", CLIENT_TIME)
        return not scope.cancelled_caught

    def _log(self, why: str, *args: object) -> None:
        logger.warning(f"%s: closing the connection of a client: {why}", self._address, *args)  # noqa: G004  # `why` is one of those above


def _words(exc: OSError) -> str:
    return (exc.strerror or str(exc)).lower()
