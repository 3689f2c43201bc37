"""What users test their apps with, and what we test ourselves with.

    async def test_answers_at_once():
        async with open_app(App, task_worker_num=1) as running:
            async with await running.connect() as client:
                await client.send(b"hello")
                assert await client.receive() == b"..."

`open_app` serves on a real port with real task worker processes, or with ``in_memory=True`` on
in-memory streams with `InlineTaskWorkers`: then nothing real is waited for, and
`trio.testing.MockClock` with its autojump works.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, final

import attrs
import trio
import trio.testing

from trioserver._addresses import TcpAddress, UnixAddress, parse_address
from trioserver._app import load_app
from trioserver._bare import Body
from trioserver._net._framing import RawFraming
from trioserver._serving import run_event_worker, serve
from trioserver._settings import Settings
from trioserver._stopping import Stopping
from trioserver._tasks._inline import InlineTaskWorkers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType
    from typing import Self

    from trioserver._net._framing import Framing
    from trioserver._server import Server

__all__ = ["Client", "InlineTaskWorkers", "RunningApp", "open_app"]

_CONNECT_TIMEOUT = 0.5
_RECEIVE_SIZE = 64 * 1024


@final
class Client:
    """A client that knows the server's framing, after Swoole's coroutine client.

    Args:
      stream: The connection; the client closes it.
      framing: How frames are cut; what the server's app has.
      max_length: The longest frame that it takes, in bytes.
    """

    def __init__(
        self, stream: trio.abc.HalfCloseableStream, framing: Framing, max_length: int = 64 * 2**20
    ) -> None:
        self.stream = stream
        """The connection itself, for what is not frames."""
        self._framing = framing
        self._decoder = framing.decoder(max_length)

    @classmethod
    async def connect(
        cls, address: str, *, framing: Framing | None = None, timeout: float = _CONNECT_TIMEOUT
    ) -> Self:
        """Connect to ``host:port`` or ``unix:/path``.

        Args:
          address: As in `Settings.bind`.
          framing: `RawFraming` unless given.
          timeout: Seconds to connect in.

        Raises:
          trio.TooSlowError: if that takes longer.
          OSError: if nobody listens there.
        """
        where = parse_address(address)
        stream: trio.SocketStream
        with trio.fail_after(timeout):
            if isinstance(where, TcpAddress):
                stream = await trio.open_tcp_stream(where.host, where.port)
            elif isinstance(where, UnixAddress):
                stream = await trio.open_unix_socket(where.path)
            else:
                raise ValueError(f"nobody can connect to {address!r}")  # noqa: TRY004  # of the text
        return cls(stream, framing or RawFraming())

    async def send(self, payload: bytes) -> None:
        """Send one frame."""
        await self.stream.send_all(self._framing.encode(payload))

    async def receive(self) -> bytes:
        """Receive one frame.

        Raises:
          trio.EndOfChannel: if the server has closed the connection after a whole frame.
          FramingError: if what it sent is not one.
        """
        while True:
            frame = self._decoder.next_frame()
            if frame is not None:
                return frame
            data = bytes(await self.stream.receive_some(_RECEIVE_SIZE))
            if not data:
                self._decoder.receive_eof()
                raise trio.EndOfChannel
            self._decoder.receive_data(data)

    async def send_eof(self) -> None:
        """Say that nothing more will be sent, and go on receiving."""
        await self.stream.send_eof()

    async def close(self) -> None:
        """Close the connection."""
        await self.stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()  # noqa: ASYNC102  # as Trio's own streams do


@final
@attrs.frozen
class RunningApp:
    """An app that is being served; see `open_app`."""

    server: Server
    """What its callbacks see too."""
    framing: Framing
    """The app's, for clients of your own."""
    in_memory: bool
    """Whether its connections are streams in memory."""

    async def connect(self) -> Client:
        """Connect one more client; close it when done."""
        if self.in_memory:
            ours, theirs = trio.testing.memory_stream_pair()
            self.server._connect(theirs)  # noqa: SLF001  # the door for what no socket leads to
            return Client(ours, self.framing)
        # A loaded machine may be slow, which says nothing about the app.
        return await Client.connect(self.server.addresses[0], framing=self.framing, timeout=10)


@asynccontextmanager
async def open_app(
    app: object, *, in_memory: bool = False, **settings: Any
) -> AsyncIterator[RunningApp]:
    """Serve ``app`` while inside; a regular exit stops it gracefully and waits for that.

    What the body raises ends everything at once and leaves as it is, in no group of ours.

    Args:
      app: As for `trioserver.serve`. With ``in_memory`` it need not be importable by name.
      in_memory: Serve in-memory streams, with `InlineTaskWorkers` in place of processes.
      settings: Replace those of the app one by one; ``bind`` is a free port of 127.0.0.1 unless
        given here.
    """
    checked = load_app(app)
    settings.setdefault("bind", "127.0.0.1:0")
    chosen = attrs.evolve(checked.settings or Settings(), **settings)
    body = Body()
    cause: BaseException
    try:
        async with trio.open_nursery() as nursery:
            if in_memory:
                checked.check(chosen, needs_import=False)
                stopping = Stopping(chosen.max_wait_time)
                workers = InlineTaskWorkers(checked, chosen) if chosen.task_worker_num else None
                server: Server = await nursery.start(
                    run_event_worker, checked, chosen, (), workers, stopping
                )
            else:
                server = await nursery.start(serve, checked, chosen)
            with body:
                yield RunningApp(server, checked.framing, in_memory)
            server.shutdown()
    except BaseExceptionGroup as group:
        cause = body.without_groups(group)
        if cause is group:
            raise
    else:
        return
    raise cause
