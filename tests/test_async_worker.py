"""Task workers whose ``on_task`` is a coroutine function: several tasks at once in one process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import async_app
import pytest
import task_app
from one_worker import open_worker
from workers import until

from trioserver._tasks._wire import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from one_worker import OneWorker

APP = "async_app:App"


async def waiting(worker: OneWorker, function: Callable[..., object]) -> int:
    """Begin a task that says by its progress that it waits now."""
    seq = worker.begin(function)
    await until(lambda: worker.values.get(seq) == ["waiting"], f"task {seq} waits")
    return seq


async def test_tasks_run_together() -> None:
    """One that waits for another, which comes after it, gets on."""
    async with open_worker(APP) as worker:
        seqs = worker.hand(*[(async_app.wait, "gate")] * 50, (async_app.open_gate, "gate"))
        assert [await worker.result(seq) for seq in seqs] == ["gate"] * 50 + [None]
        assert await worker.run(async_app.facts) == {"main": True}


async def test_no_more_run_at_once_than_may() -> None:
    """The rest waits its turn, is not begun, and can be taken back."""
    async with open_worker(APP, task_concurrency=3) as worker:
        seqs = worker.hand(*[(async_app.wait, f"gate {number}") for number in range(3)])
        rest = worker.hand(*[(async_app.echo, number) for number in range(3)])
        await until(lambda: worker.process.begun() == (3, worker.process.begun_at(3)), "3 begun")
        assert worker.process.revoke(rest[1])
        assert not worker.process.revoke(seqs[2])
        assert not worker.reports
        # The worker would begin this one only with a place that is free.
        worker.process.cancel(seqs[1])
        assert await worker.result(rest[0]) == 0
        assert await worker.status(rest[1]) == Status.SKIPPED
        assert await worker.result(rest[2]) == 2
        assert await worker.run(async_app.open_gate, "gate 0") is None
        assert await worker.run(async_app.open_gate, "gate 2") is None
        await worker.ended(*seqs)

    assert [worker.reports[seq][1] for seq in seqs] == [Status.OK, Status.CANCELLED, Status.OK]


async def test_each_has_its_begun_time() -> None:
    """While others begin and end; numbers whose place is taken are left out."""
    async with open_worker(APP, task_concurrency=2) as worker:
        (first,) = worker.hand((async_app.wait, "gate"))
        await until(lambda: (worker.process.begun() or (0, 0))[0] == first, "it has begun")
        begun = worker.process.begun_at(first)
        for number in range(255):
            assert await worker.run(async_app.echo, number) == number
        assert await worker.result(worker.hand((async_app.echo, 1), skip=1)[0]) == 1
        assert worker.process.begun_at(first) == begun
        assert begun != worker.process.begun_at(first + 1)
        await worker.run(async_app.open_gate, "gate")
        await worker.ended(first)

    assert worker.reports[first][2] == begun


async def test_a_cancelled_task_is_reported_as_that() -> None:
    """Those beside it go on; what was cancelled too late is what it is."""
    async with open_worker(APP) as worker:
        beside = await waiting(worker, async_app.say_and_wait)
        for function in (async_app.say_and_wait, async_app.cancelled_children):
            seq = await waiting(worker, function)
            worker.process.cancel(seq)
            worker.process.cancel(seq)
            assert await worker.status(seq) == Status.CANCELLED
            assert worker.reports[seq][4] == b""
            worker.process.cancel(seq)
        assert await worker.run(async_app.echo, 1) == 1
        assert beside not in worker.reports
        worker.process.cancel(beside)
        assert await worker.status(beside) == Status.CANCELLED


async def test_a_task_that_returns_nevertheless_has_a_result() -> None:
    """Or an error: the scope caught nothing, as Trio has it."""
    async with open_worker(APP) as worker:
        returns = await waiting(worker, async_app.return_when_cancelled)
        raises = await waiting(worker, async_app.raise_when_cancelled)
        unheard = await waiting(worker, async_app.return_without_hearing)
        for seq in (returns, raises, unheard):
            worker.process.cancel(seq)
        assert await worker.result(returns) == "nevertheless"
        assert (await worker.failure(raises)).summary == "ValueError: nevertheless"
        assert unheard not in worker.reports
        await worker.run(async_app.open_gate, "unheard")
        assert await worker.result(unheard) == "unheard"


RAISED: list[tuple[tuple[object, ...], str]] = [
    ((async_app.fail, ValueError, "no good"), "ValueError: no good"),
    ((async_app.fail, SystemExit, 3), "SystemExit: 3"),
    ((async_app.fail, KeyboardInterrupt), "KeyboardInterrupt"),
    ((async_app.fail, GeneratorExit), "GeneratorExit"),
    ((async_app.fail, BaseException, "base"), "BaseException: base"),
    ((async_app.fail_in_a_nursery,), "BaseExceptionGroup: Exceptions from Trio nursery"),
    ((async_app.raise_a_stray_cancelled,), "Cancelled: "),
    ((async_app.stop_iterating,), "StopAsyncIteration"),
    ((async_app.close_itself,), "GeneratorExit"),
    ((async_app.a_coroutine,), "TypeError: the task returned a coroutine; it was not awaited"),
    ((async_app.a_lock,), "TypeError: the task's result of type lock cannot be pickled"),
    ((async_app.echo,), "TypeError: echo() missing 1 required positional argument: 'value'"),
    ((len, 1), "TypeError: len() takes exactly one argument (2 given)"),
    ((async_app.leave_a_scope_open,), "RuntimeError: Cancel scope stack corrupted"),
    ((async_app.leave_a_nursery_open,), "RuntimeError: "),
]


@pytest.mark.parametrize(("data", "summary"), RAISED, ids=[summary for _, summary in RAISED])
async def test_whatever_a_task_raises_is_its_own(data: tuple[object, ...], summary: str) -> None:
    """The loop, and the tasks beside it, go on."""
    async with open_worker(APP) as worker:
        beside = await waiting(worker, async_app.say_and_wait)
        (seq,) = worker.hand(data)
        failure = await worker.failure(seq)
        assert failure.summary.startswith(summary)
        assert failure.remote_traceback.count("trioserver/_tasks") == ("pickled" in summary)
        assert await worker.run(async_app.echo, 1) == 1
        assert beside not in worker.reports
        worker.process.cancel(beside)
        assert await worker.status(beside) == Status.CANCELLED


async def test_calls_run_in_threads() -> None:
    """So that they may block; one that is cancelled has a result all the same, when it ends."""
    async with open_worker(APP, task_concurrency=2) as worker:
        assert await worker.result(worker.call(task_app.pid)) == worker.process.pid
        assert await worker.result(worker.call(async_app.thread_name)) != "MainThread"
        blocked = worker.call(async_app.blocked_call)
        assert await worker.run(async_app.echo, 1) == 1
        failed = await worker.failure(worker.call(task_app.fail, ValueError, "no good"))
        assert failed.summary == "ValueError: no good"
        await until(lambda: (worker.process.begun() or (0, 0))[0] > blocked, "others have begun")
        worker.process.cancel(blocked)
        assert await worker.run(async_app.open_gate, "call") is None
        assert await worker.result(blocked) is None


async def test_a_coroutine_function_is_seen_through_its_wrappings() -> None:
    """A partial of an object whose ``__call__`` is one."""
    async with open_worker("async_app:Hidden") as worker:
        (seq,) = worker.hand(("a", 1))
        assert await worker.result(seq) == ("hidden", ("a", 1))


async def test_tasks_do_not_inherit_from_each_other() -> None:
    """A context variable that one has set is unset in the next, which begins where it ends."""
    async with open_worker(APP, task_concurrency=1) as worker:
        seqs = worker.hand(*[(async_app.set_a_variable,)] * 5)
        assert [await worker.result(seq) for seq in seqs] == ["unset"] * 5


async def test_posts_and_progress_of_concurrent_tasks() -> None:
    """Each post gets its own answer, and each task's progress is its own."""
    async with open_worker(APP) as worker:
        posts = [worker.begin(async_app.post, number, -number) for number in range(1, 50)]
        counts = [worker.begin(async_app.count_to, 100 + number) for number in range(50)]
        ids = [await worker.result(seq) for seq in posts]
        await worker.ended(*counts)
        assert sorted(task_id for pair in ids for task_id in pair) == list(range(1001, 1099))
        for seq, (first, second) in zip(posts, ids, strict=True):
            number = worker.posted[first - 1001]
            assert worker.posted[second - 1001] == -number
            assert number == posts.index(seq) + 1

    for number, seq in enumerate(counts):
        assert worker.values[seq][-1] == 100 + number


async def test_posts_from_threads_lose_no_orders() -> None:
    """What a thread reads while it waits for its answer goes to the loop, which is woken for it."""
    async with open_worker(APP) as worker:
        threads = worker.begin(async_app.post_in_threads, 4, 100)
        for number in range(200):
            assert await worker.run(async_app.echo, number) == number
        assert sorted(await worker.result(threads)) == list(range(1001, 1401))


async def test_an_order_read_by_a_thread_is_run_before_its_answer_comes() -> None:
    """However long that takes; so is a cancellation."""
    async with open_worker(APP) as worker:
        posts: list[int] = []
        worker.on_posted = lambda seq, _: posts.append(seq)
        beside = await waiting(worker, async_app.say_and_wait)
        threads = worker.begin(async_app.post_in_threads, 2, 1)
        await until(lambda: len(posts) == 2, "both have posted")
        for number in range(20):
            assert await worker.run(async_app.echo, number) == number
        worker.process.cancel(beside)
        assert await worker.status(beside) == Status.CANCELLED
        for seq in posts:
            worker.accept(seq, b"")
        assert len(await worker.result(threads)) == 2


async def test_a_loop_that_waits_for_a_thread_that_posts_gets_on() -> None:
    """The thread reads its answer by itself."""
    async with open_worker(APP) as worker:
        assert await worker.run(async_app.post_in_a_thread_and_block) == [1001]
        assert await worker.run(async_app.echo, 1) == 1


async def test_a_thread_that_posts_all_the_time_hinders_nobody() -> None:
    """It reads what is meant for others, too."""
    async with open_worker(APP) as worker:
        seq = worker.begin(async_app.keep_posting, "done")
        for number in range(100):
            assert await worker.run(async_app.echo, number) == number
        await worker.run(async_app.open_gate, "done")
        assert await worker.result(seq) == len(worker.posted)


@pytest.mark.parametrize("function", [async_app.fork_and_return, async_app.fork_and_raise])
async def test_a_forked_child_that_comes_back_leaves(function: Callable[..., object]) -> None:
    """It would be a second worker on the same loop."""
    async with open_worker(APP) as worker:
        assert await worker.run(function) in [worker.process.pid, (worker.process.pid, 0)]
        assert await worker.run(async_app.echo, 1) == 1
        in_a_thread = await worker.result(worker.call(async_app.fork_in_a_thread))
        assert in_a_thread == (worker.process.pid, 0)
        assert await worker.run(async_app.echo, 1) == 1

    assert sorted(worker.reports) == [1, 2, 3, 4]


async def test_it_stops_after_what_it_was_given() -> None:
    """Those that run, and those that wait for their turn."""
    async with open_worker(APP, task_concurrency=2) as worker:
        seqs = worker.hand(
            (async_app.wait, "gate"), (async_app.echo, 1), (async_app.open_gate, "gate")
        )
        worker.process.stop()

    assert [worker.reports[seq][1] for seq in seqs] == [Status.OK] * 3
    assert worker.process.exit_code in {0, None}


async def test_a_worker_that_dies_leaves_what_each_had_come_to() -> None:
    """What has ended is reported, and when each of the others was begun can be seen."""
    async with open_worker(APP) as worker:
        first = await waiting(worker, async_app.say_and_wait)
        done = worker.begin(async_app.echo, 1)
        second = await waiting(worker, async_app.say_and_wait)
        (last,) = worker.hand((async_app.leave, 5))
        await worker.process.wait_ended()
        assert worker.process.begun() == (last, worker.process.begun_at(last))
        times = [worker.process.begun_at(seq) for seq in (first, second, last)]
        assert times == sorted(times)  # type: ignore[type-var]
        assert list(worker.reports) == [done]
        assert worker.process.exit_code == 5
        worker.process.exit_code = None


async def test_workers_of_plain_functions_import_no_async_loop() -> None:
    """That costs a start the time that Trio takes to import."""
    async with open_worker("ability_app:App") as worker:
        names = ("trio", "trioserver._tasks._async_loop")
        assert await worker.result(worker.call(task_app.imported, *names)) == []
    assert os.getpid() != worker.process.pid
