"""What runs in the process of an event worker, once it knows who it is."""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final

import trio

from trioserver._errors import AppError, TrioserverError, summary_of
from trioserver._guard import signals_are_received
from trioserver._logs import log_to_stderr, print_whole_lines
from trioserver._net._listeners import Listener
from trioserver._processes._channel import HEAD, Channel, Say
from trioserver._processes._membership import Member
from trioserver._processes._plan import Plan, load_as_planned
from trioserver._processes._questions import Asker
from trioserver._processes._remote import flushing
from trioserver._processes._room import Room
from trioserver._refusals import traceback_of
from trioserver._serving import Surroundings, live_in
from trioserver._signalled import raise_descriptor_limit
from trioserver._stopping import Stopping
from trioserver._titles import set_title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioserver._app import App
    from trioserver._processes._boot import Boot

logger = logging.getLogger("trioserver.server")

_LAST_WORDS: Final = 1.0
"""Seconds that the manager has to read what was said last."""


def run(
    boot: Boot,
    sock: socket.socket,
    questions: socket.socket,
    room_fd: int,
    listening: Sequence[int],
) -> int:
    """Serve until the manager says otherwise; the exit code.

    Args:
      boot: Who this is.
      sock: The channel.
      questions: For what cannot wait.
      room_fd: The memory that all processes share.
      listening: Descriptors of the sockets to accept from.
    """
    plan = Plan.from_json(boot.plan)
    print_whole_lines()
    log_to_stderr(plan.settings.log_level, f"[{boot.worker_id}]")
    set_title(f"event worker {boot.worker_id} ({plan.name})")
    raise_descriptor_limit(plan.settings, plan.settings.max_conn, 0)
    try:
        app = load_as_planned(plan)
    except BaseException as exc:  # noqa: BLE001  # its module may raise anything
        return _refuse(sock, exc)
    listeners = [
        Listener(socket.socket(fileno=fd), address)
        for fd, address in zip(listening, boot.addresses, strict=True)
    ]
    sock.setblocking(False)
    stopping = Stopping(plan.settings.max_wait_time)
    signals_are_received.set(True)
    try:
        trio.run(_live, boot, plan, app, listeners, stopping, sock, Asker(questions), Room(room_fd))
    except TrioserverError as exc:
        return _refuse(sock, exc)
    except (Exception, BaseExceptionGroup):  # a group may be of anything
        logger.exception("event worker %d failed", boot.worker_id)
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is about to end anyway
    return 0


async def _live(
    boot: Boot,
    plan: Plan,
    app: App,
    listeners: Sequence[Listener],
    stopping: Stopping,
    sock: socket.socket,
    asker: Asker,
    room: Room,
) -> None:
    settings = plan.settings
    refusal: TrioserverError | None = None
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            channel = Channel(sock, nursery, settings.max_task_size)
            member = Member(
                app,
                settings,
                worker_id=boot.worker_id,
                seat=boot.seat,
                channel=channel,
                asker=asker,
                room=room,
                stopping=stopping,
            )

            async def ask_to_be_replaced() -> None:
                async for _ in signals:
                    member.ask_to_be_replaced()

            nursery.start_soon(channel.listen, member.hear)
            nursery.start_soon(ask_to_be_replaced)
            surroundings = Surroundings(
                worker_id=boot.worker_id,
                stream_ids=member.stream_ids,
                dispatching=flushing(member.dispatcher) if settings.task_worker_num else None,
                whole=member,
                may_accept=member.wait_may_accept,
                accepts_no_more=member.accepts_no_more,
                beside=member.hear_messages,
                on_worn_out=member.ask_to_be_replaced,
            )
            try:
                await live_in(surroundings, app, settings, listeners, stopping)
            except TrioserverError as exc:  # beyond the nursery it is in a group
                refusal = exc
            else:
                channel.say(Say.LEFT, stopping.cut)
            with trio.move_on_after(_LAST_WORDS):
                await channel.wait_sent()
            channel.hang_up()
            nursery.cancel_scope.cancel()
    if refusal is not None:
        raise refusal


def _refuse(sock: socket.socket, exc: BaseException) -> int:
    """Tell the manager why this cannot start."""
    cause: BaseException | None = exc
    if isinstance(exc, TrioserverError):
        error, cause = str(exc), exc.__cause__
    else:
        error = f"the app cannot be loaded: {summary_of(exc)}".partition("\n")[0]
    text = ""
    if cause is not None:
        text = traceback_of(cause)
    elif isinstance(exc, AppError):
        text = exc.remote_traceback
    body = json.dumps({"error": error, "traceback": text}).encode()
    sock.setblocking(True)
    sock.settimeout(_LAST_WORDS)
    try:
        sock.sendall(HEAD.pack(Say.FAILED, 0, len(body)) + body)
    except OSError:  # nobody is there any more
        sys.stderr.write(text)
    return 2
