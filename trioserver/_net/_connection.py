"""One connection as callbacks see it."""

from __future__ import annotations

import math
import types
from typing import TYPE_CHECKING, Any, TypeVarTuple, final

import trio

from trioserver._cancelling import is_cancelled
from trioserver._net._background import Background
from trioserver._net._frame_limit import CountedInbox
from trioserver._net._inbox import READ_SIZE, Frames, Inbox
from trioserver._net._outbox import LEAST_ROOM, Outbox

if TYPE_CHECKING:
    import contextvars
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from trioserver._net._connections import Connections
    from trioserver._net._transport import Transport
    from trioserver._server import Server
    from trioserver._tasks._values import Completion

ArgsT = TypeVarTuple("ArgsT")


@final
class Connection(trio.abc.HalfCloseableStream):
    """A client's connection: a `trio.abc.HalfCloseableStream` of bytes that knows frames, too.

    Any number of Trio tasks may send on it at once: whole calls go out in order. One at a time may
    receive. Do not mix `receive_some` with frames.
    """

    __slots__ = (
        "__weakref__",
        "_background",
        "_connections",
        "_context",
        "_inbox",
        "_is_cancelled",
        "_is_closed",
        "_is_closed_here",
        "_is_sending_over",
        "_is_slow",
        "_outbox",
        "_scope",
        "_state",
        "_told_to_close",
        "_transport",
        "close_reason",
        "id",
    )

    id: int
    """Counts from 1; unique in the server's life and never used again."""
    close_reason: str | None
    """Why it closes or has closed, in words; None while it is open."""

    def __init__(self, number: int, connections: Connections) -> None:
        self.id = number
        self.close_reason = None
        self._connections = connections
        self._transport: Transport
        self._inbox: Inbox
        self._outbox: Outbox
        # Ends the callbacks that run now, if any do.
        self._scope: trio.CancelScope | None = None
        self._is_cancelled = False
        # Whether the last one has waited, if they run on a relay.
        self._is_slow = False
        # Theirs, if they do: what one sets, the next one sees, and no other connection.
        self._context: contextvars.Context | None = None
        # Made when they are first asked for: most connections need neither.
        self._state: types.SimpleNamespace | None = None
        self._background: Background | None = None
        # Made when the server stops and the callbacks have ended before it does.
        self._told_to_close: trio.Event | None = None
        self._is_sending_over = False
        self._is_closed = False
        self._is_closed_here = False

    def use(self, transport: Transport) -> None:
        """Take over ``transport``."""
        connections = self._connections
        self._transport = transport
        limit, pacer = connections.frame_limit, connections.pacer
        self._inbox = (
            Inbox(transport, pacer) if limit is None else CountedInbox(transport, pacer, limit)
        )
        self._outbox = Outbox(transport, connections.nursery, self.was_reset)

    # What it knows

    @property
    def server(self) -> Server:
        """The server that accepted it."""
        return self._connections.server

    @property
    def peername(self) -> Any:
        """The client's address as `socket.socket.getpeername` has it, ``""`` if there is none."""
        return self._transport.peername

    @property
    def state(self) -> types.SimpleNamespace:
        """A namespace for the app's own attributes."""
        if self._state is None:
            self._state = types.SimpleNamespace()
        return self._state

    # Sending

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``.

        Returns when the kernel has taken it all, so a client that does not read makes the sender
        wait. While another frame that arrived together with this one waits to be handled, a
        callback's replies are joined instead, up to 64 KiB, and leave together with the last one,
        or before the callback waits for anything.

        Checks for cancellation at every call, but yields to other Trio tasks only about every
        millisecond. Cancelling it before its first byte has left sends nothing; later, the rest is
        still sent, so the connection stays usable.

        Raises:
          trio.ClosedResourceError: if the connection was closed here.
          trio.BrokenResourceError: if the client has reset it.
        """
        outbox = self._outbox
        if (
            type(data) is bytes
            and (room := outbox.room - len(data)) > 0
            and self._inbox.next_frame is not None
            and not outbox.joiner._cancel_status.effectively_cancelled
        ):
            # One more, and no more to check or to yield for than the first had. There is no call in
            # this that can be spared: where sixteen requests come together, the longer way takes a
            # quarter more of the time of each.
            outbox.joined.append(data)
            outbox.room = room - LEAST_ROOM
            return
        pacer = self._connections.pacer
        if pacer.is_due() or is_cancelled():
            await pacer.checkpoint()
        if self._is_closed or self._is_sending_over:
            self._check_sending()
        if type(data) is not bytes:
            data = memoryview(data).tobytes()  # it may change while it waits; a number is refused
        if self._inbox.next_frame is None or not outbox.join(data):
            piece = outbox.put(data)
            if piece is not None:
                await outbox.wait_written(piece)

    async def send_frame(self, payload: bytes) -> None:
        """Send ``payload`` as one frame of the app's framing; otherwise as `send_all`.

        Raises:
          ValueError: if the framing cannot carry ``payload``.
        """
        await self.send_all(self._connections.protocol.framing.encode(payload))

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until what is left of earlier calls is sent; raises as `send_all`."""
        self._check_sending()
        await trio.lowlevel.checkpoint()
        await self._outbox.wait_sent()
        self._check_sending()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent, after what is left; receiving goes on.

        Raises:
          trio.ClosedResourceError: if the connection was closed here.
          trio.BrokenResourceError: if the client has reset it.
        """
        self._check_open()
        await trio.lowlevel.checkpoint()
        await self._outbox.wait_sent()
        self._check_open()
        if not self._is_sending_over:
            self._is_sending_over = True
            await self._transport.send_eof()

    # Receiving

    async def receive_frame(self) -> bytes:
        """Receive the next frame.

        Raises:
          trio.EndOfChannel: if the client sends no more, or the server stops.
          FramingError: if the client broke the framing.
          trio.BrokenResourceError: if the client has reset the connection.
          trio.ClosedResourceError: if the connection was closed here.
          trio.BusyResourceError: if another Trio task is receiving.
        """
        self._check_open()
        if self._inbox.next_frame is None:
            # The next read may find more at once, and so come before anything waits.
            self._outbox.flush()
        try:
            frame = await self._inbox.receive_frame()
        except (trio.EndOfChannel, trio.BrokenResourceError) as exc:
            self._note_end(exc)
            raise
        self._check_open()
        return frame

    def frames(self) -> AsyncIterator[bytes]:
        """Iterate over frames: ``async for frame in stream.frames(): ...``."""
        return Frames(self.receive_frame)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive bytes as they come, past the framing; ``b""`` at the end, or if the server stops.

        Raises: as `receive_frame`, but for the first two.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be >= 1: {max_bytes}")
        self._check_open()
        await trio.lowlevel.checkpoint()
        size = READ_SIZE if max_bytes is None else max_bytes
        try:
            data = await self._inbox.receive_some(size)
        except trio.BrokenResourceError as exc:
            self._note_end(exc)
            raise
        self._check_open()
        return data

    # What else belongs to it

    async def task(
        self,
        data: object,
        *,
        timeout: float | None = None,
        queue_timeout: float = math.inf,
        retries: int = 0,
        task_worker: int | None = None,
        on_finish: Callable[[Completion], Awaitable[object]] | None = None,
    ) -> int:
        """Post a task that belongs to this connection; otherwise as `Server.task`.

        When the connection closes, the task is cancelled, queued or running, and its completion
        says so. The completion's ``stream`` is this connection: where to answer. Waits also while
        `Settings.max_tasks_per_connection` of its tasks have not been heard of.

        Raises:
          trio.ClosedResourceError: also if the connection is closed.
        """
        self._check_open()
        pool = self.server._pool
        options = pool.options(timeout, queue_timeout, retries, task_worker)
        return await pool.task(data, options, stream=self, on_finish=on_finish)

    def task_nowait(
        self,
        data: object,
        *,
        timeout: float | None = None,
        queue_timeout: float = math.inf,
        retries: int = 0,
        task_worker: int | None = None,
        on_finish: Callable[[Completion], Awaitable[object]] | None = None,
    ) -> int:
        """Post as `task` does, if that needs no waiting; else raise `trio.WouldBlock`."""
        self._check_open()
        pool = self.server._pool
        options = pool.options(timeout, queue_timeout, retries, task_worker)
        return pool.task_nowait(data, options, stream=self, on_finish=on_finish)

    def start_soon(
        self, async_fn: Callable[[*ArgsT], Awaitable[object]], *args: *ArgsT, name: object = None
    ) -> None:
        """Run ``async_fn(*args)`` until it returns or the connection closes.

        If it raises, that is logged and the connection closes.

        Raises:
          trio.ClosedResourceError: if the connection is closed.
        """
        self._check_open()
        if self._background is None:
            self._background = Background()
        label = str(name or getattr(async_fn, "__qualname__", async_fn))
        self._background.start(self._connections.nursery, self, label, async_fn, args)

    async def aclose(self) -> None:
        """Close the connection; what was sent still arrives.

        A callback that runs goes on, but cannot send or receive any more, and what it waits for on
        this connection raises `trio.ClosedResourceError`; ``on_close`` runs when it has returned.
        Does nothing if the connection is closed already.
        """
        self.begin_close("closed by the server")
        self.close_here()
        await trio.lowlevel.checkpoint()

    # What its life (`_life`) and those who share it call

    @property
    def is_closed(self) -> bool:
        """Whether it takes nothing more from callbacks."""
        return self._is_closed

    @property
    def is_broken(self) -> bool:
        """Whether nothing more can reach the client."""
        return self._outbox.is_broken

    @property
    def is_at_rest(self) -> bool:
        """Whether it waits on a relay for its next frame, and no callback runs."""
        is_on_relay = self._context is not None
        return is_on_relay and self._scope is None and self._inbox.next_frame is None

    def begin_close(self, reason: str) -> None:
        """Take nothing more from callbacks; the first reason is the one that counts."""
        if not self._is_closed:
            self._outbox.flush()
            self._outbox.close()
            self._is_closed = True
            self.close_reason = reason
            self._inbox.stop()
            if self._told_to_close is not None:
                self._told_to_close.set()

    def close_here(self) -> None:
        """Also for those to whom it was broken it is closed from now on."""
        self._is_closed_here = True

    def was_reset(self) -> None:
        """The client has reset it: nothing can arrive there, so callbacks end now."""
        self._outbox.fail("the client has reset the connection")
        self.begin_close("reset by the client")
        self.cancel_callbacks()

    def cancel_callbacks(self) -> None:
        """End the callbacks, wherever they wait."""
        self._is_cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    async def stay_open(self) -> None:
        """Return when it is closed, be it by `begin_close` from elsewhere."""
        if not self._is_closed:
            self._told_to_close = trio.Event()
            await self._told_to_close.wait()

    async def stay_open_until(self, wait: Callable[[Connection], Awaitable[object]]) -> None:
        """Return when ``wait`` does, or when it is closed."""
        async with trio.open_nursery() as nursery:

            async def cancel_when_closed() -> None:
                await self.stay_open()
                nursery.cancel_scope.cancel()

            nursery.start_soon(cancel_when_closed)
            await wait(self)
            nursery.cancel_scope.cancel()

    async def run_callbacks(self, callbacks: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine of all callbacks to its end, or until `cancel_callbacks`."""
        with trio.CancelScope() as self._scope:
            if self._is_cancelled:
                self._scope.cancel()
            await self._outbox.write_before_waiting(callbacks)
        self._scope = None

    # Inside

    def _check_open(self) -> None:
        if self._is_closed:
            if self._outbox.is_broken and not self._is_closed_here:
                raise trio.BrokenResourceError(self.close_reason)
            raise trio.ClosedResourceError(f"this connection is closed: {self.close_reason}")

    def _note_end(self, exc: trio.EndOfChannel | trio.BrokenResourceError) -> None:
        if isinstance(exc, trio.BrokenResourceError):
            self.was_reset()
        else:
            self._check_open()

    def _check_sending(self) -> None:
        self._check_open()
        if self._is_sending_over:
            raise trio.ClosedResourceError("send_eof was called on this connection")

    def __repr__(self) -> str:
        state = self.close_reason or "open"
        return f"<Connection {self.id} from {self.peername!r}: {state}>"
