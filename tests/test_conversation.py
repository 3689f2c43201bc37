"""What a worker says is checked, put in order and passed on; no process here, only its words."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from trioserver._tasks._arena import LARGE, REGION_SIZE, Arena, WorkerArena
from trioserver._tasks._conversation import Conversation
from trioserver._tasks._job import Job
from trioserver._tasks._recorder import create_page
from trioserver._tasks._wire import (
    ELSEWHERE,
    ORDER,
    REPORT,
    Answer,
    Kind,
    Order,
    Status,
    TaskStream,
    unpack_orders,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TASK_SIZE = 1000
READY = REPORT.pack(0, Status.READY, 0.0, 0.0, 0)


class Talk:
    """A conversation, the worker's end of its socket, and what was heard of it."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []
        ours, self.worker = socket.socketpair()
        ours.setblocking(False)
        self.ours = ours
        fd = create_page()
        self.arena, self.workers_arena = Arena(fd), WorkerArena(fd)
        os.close(fd)

    def say(self, *records: bytes) -> None:
        """Have the worker say this, and die; seqs 1 to 4 are handed over, and 2 is cancelled."""
        jobs = []
        for seq in range(1, 5):
            job = Job(int(Kind.TASK), b"data", None)  # type: ignore[arg-type]  # nobody hears of it
            job.id, job.seq = 100 + seq, seq
            jobs.append(job)
        conversation = Conversation(
            self.ours,
            None,  # type: ignore[arg-type]  # the socket has room for all of this
            self.arena,
            max_task_size=MAX_TASK_SIZE,
            on_start=lambda status, _: self.heard.append(("start", status)),
            on_reports=lambda reports: self.heard.append(("ends", *[r[0] for r in reports])),
            on_posted=lambda seq, data: self.heard.append(("post", seq, data)),
            on_look=lambda seqs: self.heard.append(("look", *sorted(seqs))),
            on_garbled=lambda: self.heard.append(("garbled",)),
        )
        conversation.hand(jobs)
        conversation.cancel(2)
        conversation.cancel(9)
        conversation.answer_post(3, 77, Answer.FULL, "no room")
        self.worker.sendall(b"".join(records))
        self.worker.shutdown(socket.SHUT_WR)
        conversation.end()


@pytest.fixture
def talk() -> Iterator[Talk]:
    talk = Talk()
    yield talk
    talk.ours.close()
    talk.worker.close()
    talk.arena.close()


def said(seq: int, status: int, body: bytes = b"", size: int | None = None) -> bytes:
    return REPORT.pack(seq, status, 1.0, 2.0, len(body) if size is None else size) + body


def elsewhere(start: int, size: int) -> int:
    """What says that a body is in the arena."""
    return ELSEWHERE | start << 32 | size


def test_orders_go_out_in_their_order(talk: Talk) -> None:
    """A cancellation only for what is in hand."""
    talk.say(READY)
    stream: TaskStream[Order] = TaskStream(ORDER)

    many, *others = stream.feed(talk.worker.recv(65536))

    assert many[:-1] == (0, 0, 0, Kind.MANY)
    assert unpack_orders(many[-1]) == [
        (seq, 100 + seq, 1, Kind.TASK, b"data") for seq in range(1, 5)
    ]
    assert others == [
        (2, 0, 0, Kind.CANCEL, b""),
        (3, 77, Answer.FULL, Kind.POSTED, b"no room"),
    ]


def test_what_comes_together_is_passed_on_in_its_order(talk: Talk) -> None:
    """Progress first, posts between the ends that they came between, doorbells nowhere."""
    talk.say(
        READY,
        said(1, Status.OK),
        said(3, Status.POST, b"a"),
        said(3, Status.POST, b"b"),
        said(0, Status.PROGRESS),
        said(2, Status.CANCELLED),
        said(3, Status.SKIPPED),
    )

    assert talk.heard == [
        ("start", Status.READY),
        ("look", 1, 2, 3, 4),
        ("ends", 1),
        ("post", 3, b"a"),
        ("post", 3, b"b"),
        ("ends", 2, 3),
        ("look", 4),  # the last one, for what was not rung for
    ]


@pytest.mark.parametrize(
    "words",
    [
        said(1, Status.CANCELLED),  # nobody has told it to
        said(9, Status.OK),
        said(9, Status.POST),
        said(2, Status.POST, b"x"),  # it has ended
        said(3, Status.POST, bytes(MAX_TASK_SIZE + 1)),
        said(3, Status.POST, size=MAX_TASK_SIZE + 1),
        said(3, Status.OK, size=MAX_TASK_SIZE + 1024 * 1024 + 1),
        said(0, Status.PROGRESS, b"x"),
        said(0, Status.PROGRESS, size=1),
        said(3, Status.PROGRESS),
        said(0, Status.READY),
        said(3, Status.CRASHED),
        said(3, Status.TIMED_OUT),
        said(3, 99),
        said(3, Status.OK, size=elsewhere(REGION_SIZE - LARGE, LARGE + 1)),  # beyond the end
        said(3, Status.OK, size=elsewhere(REGION_SIZE, 1)),
        said(3, Status.OK, size=elsewhere(2**31 - 1, 2**32 - 1)),
        said(3, Status.OK, size=elsewhere(0, MAX_TASK_SIZE + 1024 * 1024 + 1)),
        said(9, Status.OK, size=elsewhere(0, LARGE)),
        said(3, Status.CRASHED, size=elsewhere(0, LARGE)),
        said(3, Status.POST, size=elsewhere(0, LARGE)),
        said(0, Status.READY, size=elsewhere(0, LARGE)),
    ],
)
def test_what_cannot_be_is_not_believed(talk: Talk, words: bytes) -> None:
    """What came before it is; nothing that comes after it."""
    talk.say(READY, said(2, Status.OK), words, said(4, Status.OK))

    assert talk.heard == [
        ("start", Status.READY),
        ("look", 1, 2, 3, 4),
        ("ends", 2),
        ("garbled",),
        ("look", 1, 3, 4),
    ]


def test_bodies_may_be_as_large_as_is_said(talk: Talk) -> None:
    """To the byte."""
    talk.say(
        READY,
        said(3, Status.POST, bytes(MAX_TASK_SIZE)),
        said(3, Status.FAILED, size=MAX_TASK_SIZE + 1024 * 1024),
    )

    assert ("post", 3, bytes(MAX_TASK_SIZE)) in talk.heard
    assert ("garbled",) not in talk.heard
