"""Ending tasks by their id, or with the connection that owns them."""

from __future__ import annotations

import pytest
import trio
from pool_bench import Bench, FakeStream, as_connection
from trio.testing import MockClock, wait_all_tasks_blocked

from trioserver._errors import TaskCancelled

pytestmark = pytest.mark.usefixtures("form")


async def test_cancel_ends_a_task_by_its_id(autojump_clock: MockClock) -> None:
    """True if there was one to end; its completion says that it was cancelled."""
    bench = Bench()
    async with bench.open():
        running, queued = bench.post_nowait(), bench.post_nowait()
        await bench.begin()
        assert bench.pool.cancel(queued)
        await wait_all_tasks_blocked()
        assert not bench.pool.cancel(queued)
        assert not bench.pool.cancel(99)
        assert bench.pool.cancel(running)
        await bench.die()
        await wait_all_tasks_blocked()

    assert {task_id: str(error) for task_id, error in bench.results.items()} == {
        queued: "the task was cancelled before it began: server.cancel was called",
        running: "the task was cancelled while it ran: server.cancel was called",
    }


async def test_tasks_of_a_connection_end_with_it(autojump_clock: MockClock) -> None:
    """Only its own, queued and running; completions name the stream."""
    bench = Bench()
    mine, other = FakeStream(), FakeStream()
    async with bench.open() as pool:
        for stream in (mine, other, None, mine):
            owner = None if stream is None else as_connection(stream)
            pool.task_nowait(None, stream=owner, on_finish=None)
        await bench.begin()
        pool.cancel_of_stream(as_connection(mine))
        pool.cancel_of_stream(as_connection(mine))
        await bench.die()
        await bench.run_out()
        pool.cancel_of_stream(as_connection(other))

    errors = {completion.task_id: completion.error for completion in bench.finished}
    assert {number for number, error in errors.items() if error} == {0, 3}
    assert isinstance(errors[0], TaskCancelled)
    assert errors[0].begun
    assert isinstance(errors[3], TaskCancelled)
    assert not errors[3].begun
    assert errors[3].reason == "its connection closed"
    streams = {completion.task_id: completion.stream for completion in bench.finished}
    assert streams == {0: mine, 1: other, 2: None, 3: mine}


async def test_a_closed_connection_posts_nothing(autojump_clock: MockClock) -> None:
    """Also when it closes while its post is in line."""
    bench = Bench()
    stream = FakeStream()
    text = r"^the connection that the task would belong to is closed$"

    async def post_in_vain() -> None:
        with pytest.raises(trio.ClosedResourceError, match=text):
            await bench.pool.task(None, stream=as_connection(stream), on_finish=None)

    async with bench.open(max_queued_tasks=1) as pool:
        bench.post_nowait()
        bench.post_nowait()
        async with trio.open_nursery() as posting:
            posting.start_soon(post_in_vain)
            await wait_all_tasks_blocked()
            stream.is_closed = True
            await bench.run_out()
        with pytest.raises(trio.ClosedResourceError, match=text):
            pool.task_nowait(None, stream=as_connection(stream), on_finish=None)

    assert sorted(bench.results) == [0, 1]
