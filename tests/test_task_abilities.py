"""What a task can do beside returning: tell its progress, and post other tasks."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import TYPE_CHECKING

import ability_app
import pytest
import task_app
from one_worker import open_worker
from workers import until

from trioserver._tasks._recorder import PROGRESS_SIZE
from trioserver._tasks._wire import Answer

if TYPE_CHECKING:
    from one_worker import OneWorker
    from workers import Gate

APP = "ability_app:App"
MAX_TASK_SIZE = 100_000


def content(size: int) -> int:
    """Of how many bytes a bytes object is pickled to so many."""
    return size - (len(pickle.dumps(bytes(size - 100), pickle.HIGHEST_PROTOCOL)) - (size - 100))


async def test_progress_comes_while_the_task_runs(gate: Gate) -> None:
    """Though the worker is in the midst of it and sends nothing else."""
    async with open_worker(APP) as worker:
        seq = worker.begin(ability_app.progress_and_wait, "half", gate.path)
        await until(lambda: worker.values.get(seq) == ["half"], "the value is there")
        await gate.wait_for()
        assert seq not in worker.reports
        gate.let_through()
        await worker.ended(seq)

    assert worker.values == {seq: ["half"]}


async def test_the_newest_value_counts_and_comes_before_the_end() -> None:
    """Fast ones replace each other; none comes twice, none comes late, the last one comes."""
    async with open_worker(APP) as worker:
        seqs = worker.hand(*[(ability_app.count_to, 2000)] * 3)
        await worker.ended(*seqs)

    for seq in seqs:
        values = worker.values[seq]
        assert values[-1] == 2000
        assert all(one < other for one, other in pairwise(values))  # type: ignore[operator]
        assert worker.heard.index(("end", seq)) == max(
            at for at, heard in enumerate(worker.heard) if heard[1] == seq
        )


async def test_values_of_any_size_up_to_the_largest() -> None:
    """One byte more is refused with both sizes."""
    async with open_worker(APP) as worker:
        largest = content(PROGRESS_SIZE)
        for size in (0, largest):
            seq = worker.begin(ability_app.try_to, "progress", bytes(size))
            assert await worker.result(seq) == ("nothing", "")
            assert worker.values[seq] == [bytes(size)]
        assert await worker.run(ability_app.try_to, "progress", bytes(largest + 1)) == (
            "ValueError",
            f"the progress value is {PROGRESS_SIZE + 1} bytes pickled, more than 65512",
        )


async def test_progress_of_many_threads_loses_no_last_word() -> None:
    """They write one at a time, and none waits for another."""
    async with open_worker(APP) as worker:
        seq = worker.begin(ability_app.in_threads, "progress", 4, 500)
        assert await worker.result(seq) == [None] * 2000

    last = worker.values[seq][-1]
    assert last in [(thread, 499) for thread in range(4)]


async def test_what_progress_a_killed_task_had_made_is_told(gate: Gate) -> None:
    """Also where its doorbell was not heard any more."""
    worker: OneWorker
    async with open_worker(APP) as worker:
        seq = worker.begin(ability_app.progress_and_wait, "half", gate.path)
        await gate.wait_for()
        worker.process.kill()
        await worker.process.wait_ended()
        worker.process.exit_code = None

    assert worker.values == {seq: ["half"]}


async def test_a_post_returns_the_new_tasks_id() -> None:
    """Its data arrives pickled, and before the end of the task that posted it."""
    async with open_worker(APP) as worker:
        seqs = worker.hand(
            (ability_app.post, "a", {"b": 2}), (ability_app.echo, 1), (ability_app.post, "c")
        )
        assert await worker.result(seqs[0]) == [1001, 1002]
        assert await worker.result(seqs[2]) == [1003]
        assert worker.posted == ["a", {"b": 2}, "c"]

    assert worker.heard == [
        ("post", seqs[0]),
        ("post", seqs[0]),
        ("end", seqs[0]),
        ("end", seqs[1]),
        ("post", seqs[2]),
        ("end", seqs[2]),
    ]


async def test_orders_that_come_before_the_answer_keep_their_order() -> None:
    """They were handed over while a task waited to hear what became of its post."""
    async with open_worker(APP) as worker:
        handed: list[int] = []

        def hand_more_first(seq: int, data: bytes) -> None:
            handed.extend(worker.hand((ability_app.echo, 1)))
            handed.extend(worker.hand((ability_app.echo, 2), (ability_app.echo, 3)))
            worker.accept(seq, data)
            handed.extend(worker.hand((ability_app.echo, 4)))

        worker.on_posted = hand_more_first
        seq = worker.begin(ability_app.post, "a")
        assert await worker.result(seq) == [1001]
        assert [await worker.result(seq) for seq in handed] == [1, 2, 3, 4]

    assert worker.heard == [("post", seq), ("end", seq), *(("end", seq) for seq in handed)]


@pytest.mark.parametrize(
    ("answer", "error"), [(Answer.FULL, "WouldBlock"), (Answer.CLOSED, "ClosedResourceError")]
)
async def test_a_refused_post_raises_what_trio_calls_it(answer: Answer, error: str) -> None:
    """With the reason that the server gave; Trio is imported for no less than that."""
    async with open_worker(APP) as worker:
        assert await worker.run(ability_app.post, "a") == [1001]
        assert not await worker.run(ability_app.has_imported, "trio")
        worker.on_posted = lambda seq, _: worker.process.answer_post(seq, 0, answer, "so it is")
        assert await worker.run(ability_app.try_to, "post", "b") == (error, "so it is")


@pytest.mark.parametrize("name", ["progress", "post"])
async def test_what_cannot_be_pickled_is_refused(name: str) -> None:
    """It names what was given; nothing was sent."""
    async with open_worker(APP) as worker:
        kind, text = await worker.run(ability_app.try_with_a_lock, name)

    assert kind == "TypeError"
    assert "of type lock cannot be pickled: TypeError: cannot pickle" in text
    assert worker.posted == []
    assert worker.values == {}


async def test_a_post_may_be_as_large_as_a_task() -> None:
    """Not a byte more."""
    async with open_worker(APP, MAX_TASK_SIZE) as worker:
        largest = bytes(content(MAX_TASK_SIZE))
        # The data of the task that posts is larger still; that is its poster's business.
        assert await worker.run(ability_app.try_to, "post", largest) == ("nothing", "")
        assert await worker.run(ability_app.try_to, "post", largest + b"\0") == (
            "ValueError",
            f"the data is {MAX_TASK_SIZE + 1} bytes pickled, more than max_task_size 100000",
        )
    assert worker.posted == [largest]


@pytest.mark.parametrize("name", ["progress", "post"])
async def test_a_task_that_is_over_can_do_nothing(name: str) -> None:
    """Whoever has kept it is told so, in its worker; the server hears nothing."""
    async with open_worker(APP) as worker:
        seq = worker.begin(ability_app.keep)
        await worker.ended(seq)
        assert await worker.run(ability_app.try_with_kept, name, 1) == (
            "RuntimeError",
            f"task {100 + seq} is over",
        )
    assert worker.posted == []
    assert worker.values == {}


@pytest.mark.parametrize("name", ["progress", "post"])
async def test_a_forked_child_can_do_nothing(name: str) -> None:
    """It would speak with the worker's voice, or into nothing."""
    async with open_worker(APP) as worker:
        assert await worker.run(ability_app.try_in_a_child, name, 1) == 7
        assert await worker.run(ability_app.echo, 1) == 1


@pytest.mark.parametrize("name", ["run_task", "run_tasks", "run_sync"])
async def test_waiting_for_another_task_is_refused(name: str) -> None:
    """The reason is said, and what to do instead."""
    async with open_worker(APP) as worker:
        kind, text = await worker.run(ability_app.try_to, name, 1)

    assert kind == "RuntimeError"
    assert "deadlock" in text
    assert "task.post" in text


async def test_posts_of_many_threads_have_their_own_answers() -> None:
    """Each id is given once, though four wait for answers at a time; orders are not lost."""
    async with open_worker(APP) as worker:
        seq = worker.begin(ability_app.in_threads, "post", 4, 200)
        echoes = [worker.begin(ability_app.echo, number) for number in range(200)]
        assert sorted(await worker.result(seq)) == list(range(1001, 1801))
        assert [await worker.result(seq) for seq in echoes] == list(range(200))

    assert len(set(map(str, worker.posted))) == 800
    assert worker.heard.index(("end", seq)) == 800


async def test_a_thread_that_outlives_its_task_posts_no_more() -> None:
    """No post is ever sent behind its task's end: such a worker would not be believed."""
    async with open_worker(APP) as worker:
        for _ in range(20):
            seq = worker.begin(ability_app.post_without_end)
            assert await worker.result(seq) is None
            assert await worker.run(ability_app.ending) == f"task {100 + seq} is over"


async def test_results_may_be_as_large_as_a_task() -> None:
    """What is larger is the task's failure, and costs nobody else anything."""
    async with open_worker(APP, MAX_TASK_SIZE) as worker:
        largest = content(MAX_TASK_SIZE)
        assert await worker.run(ability_app.sized, largest) == bytes(largest)
        failure = await worker.failure(worker.begin(ability_app.sized, largest + 1))
        assert await worker.run(ability_app.echo, 1) == 1

    assert failure.summary == (
        "ValueError: the task's result is 100001 bytes pickled, more than max_task_size 100000"
    )


async def test_words_of_a_failure_are_cut() -> None:
    """Each to 64 KiB with a mark, and an exception that is too large is left out."""
    async with open_worker(APP, MAX_TASK_SIZE) as worker:
        short = await worker.failure(worker.begin(ability_app.fail_at_length, 60_000))
        long = await worker.failure(worker.begin(ability_app.fail_at_length, 10_000_000))

    assert short.summary == "ValueError: " + "x" * 60_000
    assert short.pickled
    for text in long[:2]:
        assert len(text) == 64 * 1024
        assert text.endswith("x... (cut)")
    assert long.pickled == b""


async def test_its_memory_can_be_known() -> None:
    """As long as it lives."""
    async with open_worker(APP) as worker:
        memory = worker.process.memory()
        await worker.run(ability_app.echo, 1)
    assert memory is not None
    assert memory > 1_000_000
    assert worker.process.memory() is None


async def test_when_each_was_begun_is_known(gate: Gate) -> None:
    """Though numbers were left out."""
    async with open_worker(APP) as worker:
        (first,) = worker.hand((ability_app.echo, 1), skip=300)
        await worker.ended(first)
        (second,) = worker.hand((ability_app.progress_and_wait, 1, gate.path), skip=17)
        await gate.wait_for()
        begun = worker.process.begun()
        assert begun == (second, worker.process.begun_at(second))
        gate.let_through()
        await worker.ended(second)
        assert worker.reports[second][2] == begun[1]


async def test_a_worker_of_plain_functions_does_not_hear_cancellations(gate: Gate) -> None:
    """It goes on, and with what comes after."""
    async with open_worker(APP) as worker:
        seq = worker.begin(ability_app.progress_and_wait, 1, gate.path)
        await gate.wait_for()
        worker.process.cancel(seq)
        gate.let_through()
        assert await worker.result(seq) is None
        assert await worker.run(ability_app.echo, 1) == 1
        pid = worker.call(task_app.pid)
        assert await worker.result(pid) == worker.process.pid
