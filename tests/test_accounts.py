"""What each connection has posted and not heard of, and who must wait for that."""

from __future__ import annotations

from typing import cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioserver._tasks._accounts import Accounts
from trioserver._tasks._job import Job, Sink


class Stream:
    is_closed = False


def post(accounts: Accounts, stream: Stream, *, in_on_finish: bool = False) -> Job:
    accounts.enter_nowait(stream, in_on_finish=in_on_finish)
    job = Job(0, b"", cast("Sink", None))
    accounts.posted(stream, job)
    return job


def test_without_a_limit_jobs_are_only_remembered() -> None:
    """Until they have ended and that was heard."""
    accounts, stream = Accounts(0), Stream()
    jobs = [post(accounts, stream) for _ in range(100)]
    assert set(accounts.jobs_of(stream)) == set(jobs)
    assert accounts.jobs_of(Stream()) == []

    for job in jobs:
        accounts.ended(stream, job)
    assert accounts.jobs_of(stream) == []
    for _ in jobs:
        accounts.delivered(stream)
    assert accounts._accounts == {}


def test_a_limit_is_each_connection_s_own() -> None:
    """It counts until the end was heard; inside on_finish only until the end."""
    accounts, greedy, other = Accounts(2), Stream(), Stream()
    first = post(accounts, greedy)
    post(accounts, greedy)
    post(accounts, other)
    with pytest.raises(trio.WouldBlock):
        accounts.enter_nowait(greedy, in_on_finish=False)

    accounts.ended(greedy, first)
    with pytest.raises(trio.WouldBlock):
        accounts.enter_nowait(greedy, in_on_finish=False)
    second = post(accounts, greedy, in_on_finish=True)
    accounts.ended(greedy, second)
    accounts.delivered(greedy)
    accounts.delivered(greedy)
    post(accounts, greedy)


def test_what_comes_to_nothing_leaves_nothing() -> None:
    """A post that is given up makes room, and its account goes with it."""
    accounts, stream = Accounts(1), Stream()
    accounts.enter_nowait(stream, in_on_finish=False)
    with pytest.raises(trio.WouldBlock):
        accounts.enter_nowait(stream, in_on_finish=False)
    accounts.given_up(stream)

    assert accounts._accounts == {}


async def test_who_waits_goes_on_when_there_is_room(autojump_clock: MockClock) -> None:
    """One at a time, and nobody for a cancelled one."""
    accounts, stream = Accounts(1), Stream()
    job = post(accounts, stream)
    through: list[int] = []

    async def enter(name: int) -> None:
        await accounts.enter(stream, in_on_finish=False)
        through.append(name)

    async with trio.open_nursery() as posting:
        with trio.move_on_after(1):
            await enter(0)
        posting.start_soon(enter, 1)
        posting.start_soon(enter, 2)
        await wait_all_tasks_blocked()
        assert through == []
        accounts.ended(stream, job)
        await wait_all_tasks_blocked()
        assert through == []
        accounts.delivered(stream)
        await wait_all_tasks_blocked()
        assert len(through) == 1
        accounts.given_up(stream)

    assert sorted(through) == [1, 2]
    accounts.given_up(stream)
    assert accounts._accounts == {}
