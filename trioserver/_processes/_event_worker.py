"""One life of an event worker process, from its start to its death, seen from the manager."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import trio

from trioserver._memory import rss_of
from trioserver._processes._boot import Boot
from trioserver._processes._channel import Channel, Say
from trioserver._processes._guest import CANCELLED, Guest
from trioserver._processes._python import python_command
from trioserver._processes._questions import answer_questions
from trioserver._processes._signs_of_life import SignsOfLife
from trioserver._stacks import StackFile
from trioserver._statistics import EventWorkerStatistics
from trioserver._tasks._wire import WireError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioserver._net._listeners import Listener
    from trioserver._processes._channel import Record
    from trioserver._processes._guest import Desk
    from trioserver._processes._plan import Plan
    from trioserver._processes._room import Room

logger = logging.getLogger("trioserver.manager")

_SLOW_START: Final = 10.0
"""Seconds after which one that is not ready is complained of."""
_DEATH_TIME: Final = 1.0
"""Seconds between the first sign of a death and the use of more force."""


class Manager(Protocol):
    """What an event worker may ask its manager to do."""

    def worker_asks(self, worker: EventWorker, kind: int, number: int, body: bytes) -> None:
        """Reload, shut down, send a message, replace it."""

    def answer(self, worker: EventWorker, question: int, number: int) -> object:
        """Answer a question (`_questions.Ask`)."""


class EventWorker:
    """A process that handles connections.

    Args:
      number: The one that it has among event workers, and that its successors will have.
      seat: Its place in ``room``, and nobody else's while it lives.
      plan: What it serves.
      listeners: The bound sockets that it accepts from.
      desk: Has its tasks run; None without task workers.
      room: What all processes share.
      manager: Does what it asks.
    """

    def __init__(
        self,
        number: int,
        seat: int,
        plan: Plan,
        listeners: Sequence[Listener],
        desk: Desk | None,
        room: Room,
        manager: Manager,
    ) -> None:
        self.number = number
        self.seat = seat
        self.state = "starting"
        """See `EventWorkerStatistics.state`."""
        self.pid: int | None = None
        self.exit_code: int | None = None
        self.failure: tuple[str, str] | None = None
        """Why it could not start, and a traceback."""
        self.was_ready = False
        self.ready_at = 0.0
        self.has_left = False
        """Whether it has ended as it should."""
        self.cut = 0
        """Tasks and callbacks that it has ended by force."""
        self.abandoned = 0
        """Tasks that nobody will hear of, since it has died."""
        self.ready = trio.Event()
        """Set when it could accept, or is dead."""
        self.accepts_no_more = trio.Event()
        """Set when it has stopped accepting, or is dead."""
        self.ended = trio.Event()
        self._plan = plan
        self._listeners = listeners
        self._desk = desk
        self._room = room
        self._manager = manager
        self._began = trio.current_time()
        # Whether it was to be killed, maybe before there was a process.
        self._is_doomed = False
        self._channel: Channel | None = None
        self._guest: Guest | None = None
        self._stack: StackFile
        self.signs_of_life = SignsOfLife(self, partial(self._say, Say.PING), self._frames)

    # What the manager does with it

    def accept(self) -> None:
        """Have it accept connections: the sockets listen."""
        self.state = "running"
        self._room.accepts(self.seat, True)
        self._say(Say.ACCEPT)

    def retire(self) -> None:
        """Have it accept no more, and leave without a loss."""
        self.state = "leaving"
        self._room.accepts(self.seat, False)
        self._say(Say.RETIRE)

    def stop(self) -> None:
        """Have it leave in the time that a stop has."""
        self.state = "leaving"
        self._room.accepts(self.seat, False)
        if self.was_ready:
            self._say(Say.STOP)
        else:
            self.kill()

    def send(self, source: int, message: bytes) -> None:
        """Pass on a message of event worker ``source``."""
        self._say(Say.MESSAGE, source, message)

    def kill(self) -> None:
        """End the process, and what it has started, at once."""
        self._is_doomed = True
        if self.pid is not None and not self.ended.is_set():
            with suppress(ProcessLookupError, PermissionError):  # macOS: nobody is left in it
                os.killpg(self.pid, signal.SIGKILL)

    @property
    def unsent(self) -> int:
        """Bytes that it has not made room for."""
        return 0 if self._channel is None else self._channel.unsent

    @property
    def connections(self) -> int:
        """Those that are open there."""
        return self._room.connections(self.seat)

    @property
    def tasks(self) -> dict[int, object]:
        """Its tasks that have not ended."""
        return {} if self._guest is None else dict(self._guest.jobs)

    def cancel(self, task_id: int) -> bool:
        """End a task of its; False if it has no such task."""
        if self._guest is None or task_id not in self._guest.jobs:
            return False
        self._guest.cancel(task_id, CANCELLED)
        return True

    def statistics(self) -> EventWorkerStatistics:
        """It in numbers."""
        return EventWorkerStatistics(
            id=self.number,
            pid=self.pid,
            state=self.state,
            connections=self.connections,
            rss=rss_of(self.pid),
            uptime=trio.current_time() - self._began,
        )

    def __str__(self) -> str:
        return f"event worker {self.number} (pid {self.pid})"

    # Its life

    async def live(self) -> None:
        """Start the process; return when it is dead and all that it had said was heard."""
        self._room.open_seat(self.seat)
        try:
            self._stack = StackFile(f"event worker {self.number}")
            with ExitStack() as stack:
                stack.callback(self._stack.close)
                ours, theirs = map(stack.enter_context, socket.socketpair())
                asked, asking = map(stack.enter_context, socket.socketpair())
                their_end, our_end = os.pipe()
                stack.callback(os.close, our_end)
                lifeline = stack.enter_context(os.fdopen(their_end, "rb", 0))  # noqa: ASYNC231  # to close
                for sock in (ours, asked):
                    sock.setblocking(False)
                process = await self._start(theirs)
                try:
                    self.pid = process.pid
                    if self._is_doomed:
                        self.kill()
                    boot = Boot(
                        plan=self._plan.to_json(),
                        worker_id=self.number,
                        seat=self.seat,
                        addresses=tuple(listener.address for listener in self._listeners),
                    )
                    rest = boot.send(
                        ours,
                        questions=asking,
                        lifeline=lifeline.fileno(),
                        room=self._room.fd,
                        stack=self._stack.fd,
                        listening=[listener.fileno() for listener in self._listeners],
                    )
                    lifeline.close()
                    theirs.close()
                    asking.close()
                    await self._talk(process, ours, asked, rest)
                finally:
                    self.kill()
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + _DEATH_TIME):
                        self.exit_code = await process.wait()  # noqa: ASYNC102  # bounded
        except OSError as exc:  # EMFILE and the like: it could not start
            self.failure = str(exc), ""
        finally:
            self._bury()

    async def _start(self, theirs: socket.socket) -> trio.Process:
        command = python_command("event-worker", str(self.number), self._plan.name)
        # A group of its own: a signal to the manager's is the manager's to pass on, and one killpg
        # ends it with what it has started.
        return await trio.lowlevel.open_process(
            command, stdin=theirs.fileno(), process_group=0, env=os.environ
        )

    async def _talk(
        self, process: trio.Process, ours: socket.socket, asked: socket.socket, rest: bytes
    ) -> None:
        async with trio.open_nursery() as nursery:
            settings = self._plan.settings
            self._channel = Channel(ours, nursery, settings.max_task_size)
            self._channel.send_raw(rest)
            if self._desk is not None:
                self._guest = Guest(self._desk, self._channel, self.seat)
            nursery.start_soon(self._watch)
            nursery.start_soon(answer_questions, asked, nursery, self._answer)
            nursery.start_soon(self._listen)
            try:
                await process.wait()
                self._channel.read_all(self._hear)
            except WireError:
                logger.debug("what %s said last makes no sense", self)
            finally:
                self._channel.hang_up()
            nursery.cancel_scope.cancel()

    async def _listen(self) -> None:
        assert self._channel is not None
        try:
            await self._channel.listen(self._hear)
        except WireError:
            self._is_garbled()
            return
        # It is dying, or has closed its end and can never be reached again.
        await trio.sleep(_DEATH_TIME)
        self.kill()

    def _is_garbled(self) -> None:
        logger.error("%s sent what makes no sense; it is killed", self)
        self.kill()

    def _hear(self, records: list[Record]) -> None:
        self.signs_of_life.heard()
        others = records if self._guest is None else self._guest.hear(records)
        for kind, number, body in others:
            if kind == Say.READY:
                self.was_ready = True
                self.ready_at = trio.current_time()
                self.ready.set()
            elif kind == Say.FAILED:
                self._take_failure(body)
            elif kind == Say.ACCEPTS_NO_MORE:
                self.accepts_no_more.set()
            elif kind == Say.LEFT:
                self.has_left = True
                self.cut = number
            elif kind in _ASKS:
                self._manager.worker_asks(self, kind, number, body)
            elif kind != Say.PONG:
                raise WireError

    def _take_failure(self, body: bytes) -> None:
        try:
            said = json.loads(body)
            self.failure = str(said["error"]), str(said["traceback"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise WireError from None

    def _answer(self, question: int, number: int) -> object:
        # What it had said before it asked comes first.
        assert self._channel is not None
        try:
            self._channel.read_all(self._hear)
        except WireError:
            self._is_garbled()
        return self._manager.answer(self, question, number)

    async def _watch(self) -> None:
        """See that it gets ready, and then that it answers."""
        with trio.move_on_after(_SLOW_START):
            await self.ready.wait()
        if not self.ready.is_set():
            logger.warning("%s is not ready after %g s", self, _SLOW_START)
            await self.ready.wait()
        await self.signs_of_life.watch(self._plan.settings.worker_timeout, self.kill)

    async def _frames(self) -> list[str]:
        assert self.pid is not None, "it was ready"
        return await self._stack.read(self.pid)

    def _say(self, kind: Say, number: int = 0, body: bytes = b"") -> None:
        if self._channel is not None:
            self._channel.say(kind, number, body=body)

    def _bury(self) -> None:
        """Settle what it leaves behind."""
        self.state = "dead"
        if self._guest is not None:
            self.abandoned = self._guest.leave()
        self._room.close_seat(self.seat)
        # What can ask it for a sign of life is in a cycle with it, and buffers are large.
        self._channel = self._guest = None
        self.ready.set()
        self.accepts_no_more.set()
        self.ended.set()


_ASKS: Final = frozenset({Say.SEND, Say.RELOAD, Say.SHUTDOWN, Say.RECYCLE})
