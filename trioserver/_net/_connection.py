"""One connection as callbacks see it."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Final, TypeVarTuple, final

import trio

from trioserver._errors import FramingError
from trioserver._net._background import Background
from trioserver._net._outbox import Outbox
from trioserver._net._transport import ReadingStopped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator

    from trioserver._net._connections import Connections
    from trioserver._net._transport import Transport
    from trioserver._server import Server
    from trioserver._tasks._values import Completion

ArgsT = TypeVarTuple("ArgsT")

READ_SIZE: Final = 64 * 1024
"""Bytes that one read asks for."""
FRAME_BUDGET: Final = 64
"""Frames that are handled before others have their turn.

With it the polite neighbours of a flooding client wait 0.7 ms at their p99; without it 12 ms.
"""
HIGH_WATER: Final = 64 * 1024
"""Bytes of replies that are joined before they are written."""
CLOSE_TIME: Final = 5.0
"""Seconds that a peer has to take what is left to send when its connection closes."""


@final
class Connection(trio.abc.HalfCloseableStream):
    """A client's connection: a `trio.abc.HalfCloseableStream` of bytes that knows frames, too.

    Any number of Trio tasks may send on it at once: whole calls go out in order. One at a time may
    receive. Do not mix `receive_some` with frames.
    """

    __slots__ = (
        "_background",
        "_budget",
        "_decoder",
        "_is_callback_running",
        "_is_closed",
        "_is_sending_over",
        "_joined",
        "_joined_size",
        "_next_frame",
        "_outbox",
        "_connections",
        "_scope",
        "_state",
        "_transport",
        "close_reason",
        "framing_error",
        "id",
        "is_at_eof",
        "is_reading_stopped",
    )

    id: int
    """Counts from 1; unique in the server's life and never used again."""
    close_reason: str | None
    """Why it closes or has closed, in words; None while it is open."""

    def __init__(self, number: int, connections: Connections) -> None:
        self.id = number
        self.close_reason = None
        self._connections = connections
        self._decoder = connections.protocol.decoder()
        self._transport: Transport
        self._outbox: Outbox
        # Ends the callbacks.
        self._scope = trio.CancelScope()
        self._state: types.SimpleNamespace | None = None
        self._background: Background | None = None
        # Whether the callbacks' coroutine has the processor, so that whoever sends is part of it.
        self._is_callback_running = False
        # The frame after the one that is being handled, if it has come whole: then replies wait to
        # be joined by its own.
        self._next_frame: bytes | None = None
        self._joined: list[bytes] = []
        self._joined_size = 0
        self._budget = FRAME_BUDGET
        self.framing_error: FramingError | None = None
        # For `_life`: why frames have ended.
        self.is_at_eof = False
        self.is_reading_stopped = False
        self._is_sending_over = False
        self._is_closed = False

    def use(self, transport: Transport) -> None:
        """Take over ``transport``."""
        self._transport = transport
        self._outbox = Outbox(transport, self._connections.nursery)

    # What it knows

    @property
    def server(self) -> Server:
        """The server that accepted it."""
        return self._connections.server

    @property
    def peername(self) -> Any:  # noqa: ANN401  # as socket.getpeername has it
        """The client's address as `socket.socket.getpeername` has it; ``""`` where there is none."""
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
        await self._connections.pacer.checkpoint()
        self._check_sendable()
        if self._is_callback_running and not self._outbox.is_backed_up:
            self._joined.append(bytes(data))
            self._joined_size += len(data)
            if self._next_frame is not None and self._joined_size < HIGH_WATER:
                return
            data = self._take_joined()
        if data:
            await self._outbox.send_all(bytes(data))

    async def send_frame(self, payload: bytes) -> None:
        """Send ``payload`` as one frame of the app's framing; otherwise as `send_all`.

        Raises:
          ValueError: if the framing cannot carry ``payload``.
        """
        await self.send_all(self._connections.protocol.framing.encode(payload))

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until what is left of earlier calls is sent."""
        self._check_open()
        await trio.lowlevel.checkpoint()
        await self._outbox.wait_empty()
        self._check_open()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent, after what is left; receiving goes on."""
        self._check_open()
        self._flush()
        await trio.lowlevel.checkpoint()
        await self._outbox.wait_empty()
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
        self._budget -= 1
        if self._budget <= 0:
            self._budget = FRAME_BUDGET
            await self._connections.pacer.give_turn()
        frame = self._next_frame
        if frame is None:
            frame = await self._read_frame()
        self._next_frame = self._decode()
        return frame

    def frames(self) -> AsyncIterator[bytes]:
        """Iterate over frames: ``async for frame in stream.frames()``; raises as `receive_frame`."""
        return _Frames(self)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive bytes as they come, past the framing; ``b""`` at the end or when the server stops.

        Raises: as `receive_frame`, but for the first two.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be >= 1: {max_bytes}")
        self._check_open()
        await trio.lowlevel.checkpoint()
        self._flush()
        return await self._receive(max_bytes or READ_SIZE) or b""

    async def _receive(self, max_bytes: int) -> bytes | None:
        """Bytes, empty at the client's end of file, None if reading was stopped."""
        try:
            return await self._transport.receive_some(max_bytes)
        except ReadingStopped:
            self._check_open()
            self.is_reading_stopped = True
            return None
        except trio.BrokenResourceError:
            self._outbox.fail("the client has reset the connection")
            raise

    async def _read_frame(self) -> bytes:
        self._check_open()
        while True:
            if self.framing_error is not None:
                raise self.framing_error
            self._flush()
            if self.is_at_eof:
                raise trio.EndOfChannel
            data = await self._receive(READ_SIZE)
            if data is None:
                raise trio.EndOfChannel
            if not data:
                self.is_at_eof = True
                try:
                    self._decoder.receive_eof()
                except FramingError as exc:
                    self.framing_error = exc
                continue
            self._decoder.receive_data(data)
            frame = self._decode()
            if frame is not None:
                return frame

    def _decode(self) -> bytes | None:
        """The next whole frame; an error waits until the frames before it are handled."""
        if self.framing_error is not None:
            return None
        try:
            return self._decoder.next_frame()
        except FramingError as exc:
            self.framing_error = exc
            return None

    # What else belongs to it

    async def task(
        self,
        data: object,
        *,
        on_finish: Callable[[Completion], Awaitable[object]] | None = None,
    ) -> int:
        """Post a task that belongs to this connection; otherwise as `Server.task`.

        When the connection closes, the task is cancelled, queued or running, and its completion
        says so. The completion's ``stream`` is this connection: where to answer.

        Raises:
          trio.ClosedResourceError: also if the connection is closed.
        """
        self._check_open()
        return await self.server._post(data, self, on_finish)  # noqa: SLF001  # one API, two doors

    def task_nowait(
        self,
        data: object,
        *,
        on_finish: Callable[[Completion], Awaitable[object]] | None = None,
    ) -> int:
        """Post as `task` does, if that needs no waiting; else raise `trio.WouldBlock`."""
        self._check_open()
        return self.server._post_nowait(data, self, on_finish)  # noqa: SLF001  # as above

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

        A callback that runs goes on, but cannot send or receive any more; ``on_close`` runs when it
        has returned. Does nothing if the connection is closed already.
        """
        self.begin_close("closed by the server")
        await trio.lowlevel.checkpoint()

    # What its life (`_life`) calls

    @property
    def is_closed(self) -> bool:
        """Whether it takes nothing more from callbacks."""
        return self._is_closed

    @property
    def is_broken(self) -> bool:
        """Whether the client can get nothing more."""
        return self._outbox.is_broken

    def stop_reading(self) -> None:
        """End the wait for the next frame; whole frames that are here are still handled."""
        self._transport.stop_reading()

    def begin_close(self, reason: str) -> None:
        """Take nothing more from callbacks; the first reason is the one that counts."""
        if not self._is_closed:
            self._flush()
            self._is_closed = True
            self.close_reason = reason
            self._transport.stop_reading()

    def was_reset(self) -> None:
        """The client has reset it: nothing can arrive there, so callbacks end now."""
        self._joined.clear()
        self.begin_close("reset by the client")
        self._outbox.fail("the client has reset the connection")
        self.cancel_callbacks()

    def cancel_callbacks(self) -> None:
        """End the callbacks, wherever they wait."""
        self._scope.cancel()

    async def run_callbacks(self, callbacks: Coroutine[Any, Any, None]) -> bool:
        """Run the coroutine of all callbacks to its end; False if it was cancelled."""
        with self._scope:
            await self._write_before_waiting(callbacks)
        return not self._scope.cancelled_caught

    async def release(self) -> None:
        """End what belongs to it, let the client take what is left, and close the transport."""
        try:
            if self._background is not None:
                await self._background.end()
            with trio.move_on_after(CLOSE_TIME):
                await self._outbox.wait_empty()
        finally:
            await self._transport.aclose()

    # Inside

    def _check_open(self) -> None:
        if self._is_closed:
            if self._outbox.is_broken:
                raise trio.BrokenResourceError(self.close_reason)
            raise trio.ClosedResourceError(f"this connection is closed: {self.close_reason}")

    def _check_sendable(self) -> None:
        self._check_open()
        self._outbox.check()
        if self._is_sending_over:
            raise trio.ClosedResourceError("send_eof was called on this connection")

    def _take_joined(self) -> bytes:
        data = self._joined[0] if len(self._joined) == 1 else b"".join(self._joined)
        self._joined.clear()
        self._joined_size = 0
        return data

    def _flush(self) -> None:
        """Write joined replies; never raises, since Trio's traps wait behind it."""
        if self._joined:
            self._outbox.post(self._take_joined())

    @types.coroutine
    def _write_before_waiting(
        self, callbacks: Coroutine[Any, Any, None]
    ) -> Generator[Any, Any, None]:
        """Await ``callbacks``, and write joined replies before each time that it waits.

        It passes Trio's traps on as they are. Nothing may go wrong between a trap and its ``yield``:
        the trap has parked this task already, and only Trio can wake it.
        """
        resume: Callable[[Any], object] = callbacks.send
        value: object = None
        while True:
            self._is_callback_running = True
            try:
                trap = resume(value)
            except StopIteration:
                return
            finally:
                self._is_callback_running = False
            self._flush()
            try:
                value = yield trap
                resume = callbacks.send
            except BaseException as exc:  # noqa: BLE001  # it belongs to `callbacks`
                value = exc
                resume = callbacks.throw

    def __repr__(self) -> str:
        state = self.close_reason or "open"
        return f"<Connection {self.id} from {self.peername!r}: {state}>"


class _Frames:
    """The frames of a connection, until the client sends no more."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __aiter__(self) -> _Frames:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._connection.receive_frame()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
