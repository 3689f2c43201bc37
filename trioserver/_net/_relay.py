"""Callbacks of many connections, run by a few Trio tasks that pass a baton.

Who holds the baton waits for the sockets of all connections, and calls ``on_receive`` for the
frames that have come, one connection after another. A callback that returns without having waited
costs no pass of Trio's scheduler, and its connection no Trio task. One that waits takes its runner
along: the baton goes to another runner at that moment, and this one is the callback's own, with all
that a Trio task may do, until the callback returns.

Against a task for each connection a short request takes three quarters of the time, or a bit more
than half with 1,000 connections, and an idle connection a fifth of the memory (1.5 KiB). Callbacks
that wait cost what they did: who waited last time is handed to a runner of its own, all of them in
one pass of the scheduler. What a task would give a connection, it has from elsewhere:

- a scope that ends its callbacks, and nobody else's: its runner's, from the moment it waits;
- context variables: a context of its own, in which each of its callbacks runs;
- its turn and no more: `FRAME_BUDGET` frames, and then others have theirs;
- order: it is in the queue of those that are ready, or with one runner, or at rest.

One thing it has not: a Trio task of its own from one callback to the next. What Trio ties to a
task, an open scope or the ownership of a `trio.Lock`, is a callback's, and ends with it.
"""

from __future__ import annotations

import logging
import types
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, final

import trio

from trioserver._cancelling import innermost_scope
from trioserver._errors import FramingError
from trioserver._guard import contain
from trioserver._net._endings import endings_left_out
from trioserver._net._inbox import FRAME_BUDGET
from trioserver._net._life import Place, leave, note_why

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from trioserver._net._connection import Connection
    from trioserver._net._connections import Connections
    from trioserver._net._readiness import EpollReadiness

logger = logging.getLogger("trioserver.connection")

_CALLBACK: Final = "on_receive"
_MOST_SPARE: Final = 100
"""Runners that are kept for callbacks that will wait. With 50 clients whose callbacks all do, a new
one for each took 25 µs a request, and a kept one 20."""

_MOST_SHARE: Final = 0.02
"""Seconds at the most that the ready ones of one turn take, however long others had theirs."""


@final
class Relay:
    """Calls ``on_receive`` for the frames of connections with `SocketTransport`.

    Args:
      readiness: Watches their sockets; run here.
      connections: Theirs.
      on_receive: Called with a connection and a frame.
    """

    def __init__(
        self,
        readiness: EpollReadiness,
        connections: Connections,
        on_receive: Callable[[Connection, bytes], Awaitable[object]],
    ) -> None:
        self._readiness = readiness
        self._ready: deque[Connection] = readiness.ready
        self._connections = connections
        self._on_receive = on_receive
        # The scope of the runner who holds the baton; None while it is being passed.
        self._baton: trio.CancelScope | None = None
        # For runners, one of whom was woken for each: connections, and the baton, which is None.
        self._handed: deque[Connection | None] = deque([None])
        self._spare: list[trio.lowlevel.Task] = []
        self._is_over = False

    @property
    def behind(self) -> int:
        """How many connections wait for their turn."""
        return len(self._ready)

    async def run(self) -> None:
        """Be a runner until cancelled or not needed."""
        is_needed = True
        while is_needed:
            scope = trio.CancelScope()
            try:
                is_needed = await self._work_inside(scope)
            except BaseException:
                if self._baton is scope:
                    self._end_all()
                raise
            if self._baton is scope:
                self._handed.appendleft(None)

    def go_on(
        self, connection: Connection, callback: str, error: BaseException | None = None
    ) -> None:
        """``callback`` has returned, or raised: call the next when it is due, or end them."""
        connection._scope = None
        if connection._outbox.joined:
            connection._outbox.flush()
        inbox = connection._inbox
        is_frame_here = inbox.next_frame is not None
        if (
            error is not None
            or connection._is_closed
            or connection._is_cancelled
            or self._is_over
            or (not is_frame_here and inbox.is_over)
        ):
            connections = self._connections
            note_why(connection, connections.protocol, callback, error)
            connections.handled(connection)
            context, connection._context = connection._context, None
            assert context is not None, "it was with the relay"
            connections.nursery.start_soon(leave, connection, connections, context)
        elif is_frame_here:
            self._readiness.append(connection)
        else:
            connection._transport.enlist(  # type: ignore[attr-defined]  # a SocketTransport
                self._readiness, connection
            )

    async def _work_inside(self, scope: trio.CancelScope) -> bool:
        raised: BaseException | None = None
        try:
            with scope:
                try:
                    return await self._work(scope)
                except BaseException as exc:
                    raised = exc
                    raise
        except RuntimeError as exc:
            if exc is raised:
                raise
            # The scope says that a callback has left another one open inside, and drops it.
        finally:
            del raised  # it would keep itself alive
        return True

    async def _work(self, scope: trio.CancelScope) -> bool:
        """Do what is handed to runners until ``scope`` is used up.

        Returns:
          Whether this runner is still needed.
        """
        innermost = innermost_scope(trio.lowlevel.current_task())
        while True:
            while self._handed:
                connection = self._handed.popleft()
                if connection is None:
                    self._baton = scope
                    is_used_up = await self._lead(scope, innermost)
                else:
                    is_used_up = await self._call(deque([connection]), scope, innermost)
                if is_used_up:
                    return True
            if len(self._spare) >= _MOST_SPARE:
                return False
            await self._wait_handed()

    async def _lead(self, scope: trio.CancelScope, innermost: object) -> bool:
        """Hold the baton until it is passed; whether ``scope`` is used up."""
        pacer = self._connections.pacer
        # Whoever takes over from a scope that was used up goes on with its turn.
        is_in_turn = not pacer.is_due()
        while True:
            if not self._ready:
                await self._readiness.wait()
                pacer.note_turn()
            else:
                if not is_in_turn:
                    # All who are ready have the time that others had. With less of it, clients that
                    # come and go faster than they are served would have those wait who stay.
                    began = perf_counter()
                    await trio.lowlevel.checkpoint()
                    pacer.note_turn(min(perf_counter() - began, _MOST_SHARE))
                self._readiness.look()
            is_in_turn = False
            is_used_up = await self._call(self._ready, scope, innermost)
            if is_used_up or self._baton is not scope:
                return is_used_up

    @types.coroutine
    def _call(
        self, ready: deque[Connection], scope: trio.CancelScope, innermost: object
    ) -> Generator[Any, Any, bool]:
        """Call the callbacks of ``ready`` for a turn, or to the end of one that waits.

        Returns:
          Whether ``scope`` is used up.
        """
        pacer = self._connections.pacer
        task = trio.lowlevel.current_task()
        for _ in range(len(ready)):
            connection = ready.popleft()
            if connection._is_slow and self._baton is scope:
                self._hand(connection)
                continue
            outbox, context = connection._outbox, connection._context
            if context is None:
                continue  # all were ended while it was being handed over
            connection._scope = scope
            callbacks = self._handle(connection)
            error = None
            outbox.has_processor = True
            try:
                try:
                    trap = context.run(callbacks.send, None)
                finally:
                    outbox.has_processor = False
                # It waits. Until Trio knows, nothing may go wrong: see `write_before_waiting`.
                connection._is_slow = True
                if self._baton is scope:
                    self._baton = None
                    self._hand(None)
                yield from outbox.write_before_waiting(callbacks, context.run, trap)
            except StopIteration:
                connection._is_slow = False  # it has not waited, as nearly all do not
            except BaseException as exc:  # noqa: BLE001, ASYNC103  # `_contain` raises what passes
                # There, so that the log may tell what its variables say.
                error = context.run(self._contain, connection, exc)
            if error is None and innermost_scope(task) is not innermost:
                # The next callback would be cancelled with that scope.
                error = self._contain(connection, RuntimeError("a cancel scope was left open"))
            self.go_on(connection, _CALLBACK, error)
            if scope.cancel_called or innermost_scope(task) is not innermost:
                return True
            if self._baton is not scope or pacer.is_due():
                break
        return False

    def _hand(self, connection: Connection | None) -> None:
        """Have another runner run, for ``connection`` or with the baton."""
        self._handed.append(connection)
        if self._spare:
            trio.lowlevel.reschedule(self._spare.pop())
        else:
            self._connections.nursery.start_soon(self.run, name="trioserver relay")

    async def _wait_handed(self) -> None:
        # Half of what a `trio.lowlevel.ParkingLot` takes, and who came last has the warmest caches.
        task = trio.lowlevel.current_task()
        self._spare.append(task)

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._spare.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def _handle(self, connection: Connection) -> None:
        """Call ``on_receive`` for frames that are here or that one read brings."""
        if connection._is_closed or connection._is_cancelled:
            return
        inbox, on_receive = connection._inbox, self._on_receive
        try:
            frame = inbox.receive_frame_nowait()
        except trio.BrokenResourceError:
            connection.was_reset()
            return
        if frame is None:
            return
        await on_receive(connection, frame)
        is_counted = inbox.is_counted
        for _ in range(FRAME_BUDGET - 1):
            frame = inbox.next_frame
            if frame is None or connection._is_closed:
                return
            # As `Inbox.receive_frame_nowait`, without the call: where sixteen requests come
            # together, each call is a twentieth of the time of each.
            try:
                inbox.next_frame = inbox.decode_next()
            except FramingError as exc:
                inbox.broke_off(exc)
            if is_counted:
                inbox.count_frame()
            await on_receive(connection, frame)

    def _contain(self, connection: Connection, exc: BaseException) -> BaseException | None:
        """See `contained`; what passes ends the connection."""
        place = Place(connection, _CALLBACK)
        try:
            try:
                with endings_left_out(connection, place):
                    raise exc  # noqa: TRY301  # where a `with` hears of it
            except BaseException as rest:  # noqa: BLE001, ASYNC103  # `contain` raises what passes
                return contain(logger, place, rest)  # noqa: ASYNC104  # as above
        except BaseException:
            connection.cancel_callbacks()
            self.go_on(connection, _CALLBACK)
            raise
        return None

    def _end_all(self) -> None:
        """Nobody will take the baton: cancelled from outside, all that is left comes to an end."""
        self._is_over = True
        for connection in self._connections.handled_ones:
            if connection._context is not None and connection._scope is None:
                self.go_on(connection, _CALLBACK)
