"""Synchronous questions to the manager, and what becomes of them if it does not answer."""

from __future__ import annotations

import itertools
import pickle
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from trioserver._processes._questions import (
    _ANSWER,
    IDS,
    Ask,
    Asker,
    Ids,
    NoAnswerError,
    answer_questions,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_THERE = r"^the manager does not answer$"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def answer(count: int, value: object) -> bytes:
    body = pickle.dumps(value)
    return _ANSWER.pack(count, len(body)) + body


def test_late_answers_are_dropped(ends: tuple[socket.socket, socket.socket]) -> None:
    """Also one that was given up in its middle: the next question gets its own."""
    ours, theirs = ends
    asker = Asker(ours)
    late = answer(1, "late" * 1000)
    theirs.send(late[:100])
    with pytest.raises(NoAnswerError, match=NOT_THERE):
        asker.ask(Ask.STATISTICS, patience=0.05)
    theirs.send(late[100:] + answer(2, "right"))
    assert asker.ask(Ask.STATISTICS) == "right"


def test_a_stopped_manager_costs_no_more_than_patience(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """Though what comes is late answers only, one after the other."""
    ours, theirs = ends
    asker = Asker(ours)
    with pytest.raises(NoAnswerError):
        asker.ask(Ask.STATISTICS, patience=0.01)
    theirs.send(answer(1, None) * 3 + answer(2, None)[:-1])
    began = time.monotonic()
    with pytest.raises(NoAnswerError, match=NOT_THERE):
        asker.ask(Ask.STATISTICS, patience=0.2)
    assert time.monotonic() - began >= 0.2


def test_a_dead_manager_is_noticed_at_once(ends: tuple[socket.socket, socket.socket]) -> None:
    """Before and after it has read the question."""
    ours, theirs = ends
    asker = Asker(ours)
    theirs.close()
    for _ in range(2):
        with pytest.raises(NoAnswerError, match=NOT_THERE):
            asker.ask(Ask.STATISTICS, patience=1000)


def test_ids_can_be_asked_for_again(ends: tuple[socket.socket, socket.socket]) -> None:
    """One failure does not end them."""
    ours, _ = ends
    asker = Asker(ours)
    ids = Ids(asker, Ask.TASK_IDS)
    ours.shutdown(socket.SHUT_RD)
    for _ in range(2):
        with pytest.raises(NoAnswerError, match=NOT_THERE):
            next(ids)


async def test_two_askers_never_get_the_same_id() -> None:
    """Blocks go to whoever asks first."""
    blocks = itertools.count(0, IDS)
    found: list[list[int]] = [[], []]

    def take(sock: socket.socket, ids: list[int]) -> None:
        ids.extend(itertools.islice(Ids(Asker(sock), Ask.TASK_IDS), 3 * IDS + 1))

    with trio.fail_after(30), ExitStack() as stack:
        async with trio.open_nursery() as answering:
            async with trio.open_nursery() as asking:
                for ids in found:
                    ours, theirs = map(stack.enter_context, socket.socketpair())
                    theirs.setblocking(False)
                    answering.start_soon(
                        answer_questions, theirs, answering, lambda _question, _number: next(blocks)
                    )
                    asking.start_soon(trio.to_thread.run_sync, take, ours, ids)
            answering.cancel_scope.cancel()
    assert len({*found[0], *found[1]}) == 2 * (3 * IDS + 1)


async def test_nonsense_is_answered_no_more(
    ends: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    """It costs who asks it, and the manager a line."""
    ours, theirs = ends
    theirs.setblocking(False)
    ours.send(b"\xff" * 100)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await answer_questions(theirs, nursery, lambda _question, _number: 1 / 0)
    assert [record.getMessage() for record in caplog.records] == [
        "an event worker asks what makes no sense: it is answered no more"
    ]
