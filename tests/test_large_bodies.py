"""Large payloads and results, through real task workers that may die or be spoilt meanwhile."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import async_app
import body_app
import pytest
import task_app
import trio
from one_worker import open_worker
from workers import Gate, open_workers, until

from trioserver._errors import TaskWorkerCrashed
from trioserver._tasks import _conversation
from trioserver._tasks._arena import LARGE, REGION_SIZE

if TYPE_CHECKING:
    from types import ModuleType

APP = "body_app:App"
MIB = 1024 * 1024
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


@pytest.mark.parametrize("app", [task_app, async_app])
async def test_bodies_of_every_size_come_back_as_they_went(app: ModuleType) -> None:
    """Small ones, those that have a place of their own, and those for which there is no room."""
    sizes = [LARGE - 60, LARGE - 1, LARGE, LARGE + 1, 200_000, MIB, REGION_SIZE, REGION_SIZE + MIB]
    data = [os.urandom(size) for size in sizes]
    async with open_workers(2, f"{app.__name__}:App", max_task_size=2 * REGION_SIZE) as workers:
        for _ in range(2):
            outcomes = await workers.pool.run_tasks([(app.echo, item) for item in data])
            assert all(outcome.result == item for outcome, item in zip(outcomes, data, strict=True))


@pytest.mark.usefixtures("form")
async def test_more_is_queued_than_there_is_room_for(gate: Gate) -> None:
    """None is mixed up, and each keeps its turn."""
    count = 3 * REGION_SIZE // MIB
    async with open_workers(1, APP) as workers:
        waits = await workers.post(task_app.wait, gate.path)
        posted = [
            await workers.post(body_app.checked, number, bytes([number]) * MIB)
            for number in range(count)
        ]
        await gate.wait_for()
        gate.let_through()
        await until(lambda: len(workers.finished) == 1 + count, "all have ended")

    assert [completion.task_id for completion in workers.finished] == [waits, *posted]
    for number, completion in enumerate(workers.finished[1:]):
        assert completion.result == (number, bytes([number]) * MIB)


async def test_more_in_hand_than_there_is_room_for() -> None:
    """Of orders, and of results, since the server's loop stands still and reads none."""
    count = 2 * REGION_SIZE // MIB
    async with open_worker(APP, max_task_size=4 * MIB) as worker:
        seqs = worker.hand(
            *[(body_app.checked, number, bytes([number]) * MIB) for number in range(count)]
        )
        time.sleep(0.3)  # noqa: ASYNC251  # as one that stands still does
        for number, seq in enumerate(seqs):
            assert await worker.result(seq) == (number, bytes([number]) * MIB)


@pytest.mark.usefixtures("form")
async def test_large_results_that_were_finished_and_not_sent_survive(gate: Gate) -> None:
    """Their bodies lie beside the flight recorder; what was handed ahead runs elsewhere."""
    async with open_workers(1, APP) as workers:
        for number in range(5):
            await workers.post(body_app.checked, number, bytes([number]) * 2 * LARGE)
        await workers.post(task_app.wait, gate.path)
        await workers.post(body_app.checked, 9, bytes([9]) * MIB)
        (pid,) = await gate.wait_for()
        os.kill(pid, signal.SIGKILL)
        await workers.pool.wait_idle()

    for number in range(5):
        assert workers.finished[number].result == (number, bytes([number]) * 2 * LARGE)
        assert workers.finished[number].attempt == 1
    assert isinstance(workers.finished[5].error, TaskWorkerCrashed)
    assert workers.finished[6].result == (9, bytes([9]) * MIB)


@pytest.mark.usefixtures("form")
async def test_a_worker_that_is_killed_with_large_bodies_under_way() -> None:
    """At whichever byte: each task ends once, with its result or with its worker."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    count = crashed = 0
    async with open_workers(2, APP) as workers:
        for _ in range(12):
            dead = workers.pids[rng.randrange(2)]
            for number in range(24):
                size = rng.choice([LARGE, 100_000, MIB])
                await workers.post(body_app.checked, number, bytes([number]) * size)
            count += 24
            await trio.sleep(rng.uniform(0, 0.01))
            os.kill(dead, signal.SIGKILL)
            await workers.pool.wait_idle()
            await workers.until_whole(dead)
        assert len({completion.task_id for completion in workers.finished}) == count
        assert len(workers.finished) == count, f"seed {seed}"
        for completion in workers.finished:
            if completion.error is None:
                number, data = completion.result
                assert completion.data == (body_app.checked, number, data)
            else:
                assert isinstance(completion.error, TaskWorkerCrashed), f"seed {seed}"
                crashed += 1

    assert crashed <= 12, f"seed {seed}"


async def test_what_a_task_got_is_its_own() -> None:
    """It may keep that for ever: the place is used again, and what it has does not change."""
    async with open_worker(APP, max_task_size=4 * MIB) as worker:
        data = [bytes([1]) * MIB, bytearray([2]) * LARGE, "3" * MIB, [bytes([4]) * MIB]]
        for item in data:
            await worker.run(body_app.keep, item)
        for number in range(20):
            await worker.run(body_app.checked, number, bytes([number]) * MIB)

        assert await worker.run(body_app.kept) == data


async def test_a_large_result_of_a_forked_child_is_nobodys() -> None:
    """The worker's own arrives, and the next one too."""
    async with open_worker(APP, max_task_size=4 * MIB) as worker:
        for _ in range(3):
            child, data = await worker.run(body_app.fork_and_return_large, MIB)
            assert child > 0
            assert data == bytes([1]) * MIB


@linux_only
async def test_a_task_that_scribbles_harms_none_of_those_behind_it(gate: Gate) -> None:
    """What they are given it cannot reach, and their results come after it."""
    async with open_worker(APP, max_task_size=4 * MIB) as worker:
        before, spoils, *behind = worker.hand(
            (body_app.checked, 0, bytes(2 * LARGE)),
            (body_app.spoil_large_bodies, gate.path),
            *[(body_app.checked, number, bytes([number]) * MIB) for number in range(1, 6)],
        )
        await gate.wait_for()
        gate.let_through()
        await worker.ended(before)

        assert await worker.result(spoils) == "done"
        for number, seq in enumerate(behind, 1):
            assert await worker.result(seq) == (number, bytes([number]) * MIB)


@linux_only
async def test_their_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """When there were none for a while, and as often as there were some."""
    monkeypatch.setattr(_conversation, "_QUIET_TIME", 0.02)
    async with open_worker(APP, max_task_size=4 * MIB) as worker:
        assert worker.process._page is not None
        page_fd = worker.process._page.fd

        def held() -> int:
            return os.fstat(page_fd).st_blocks * 512

        await worker.run(body_app.checked, 0, bytes(10))
        before = held()
        for _ in range(3):
            seqs = worker.hand(*[(body_app.checked, 1, bytes([1]) * MIB)] * 8)
            assert held() >= before + 8 * MIB
            await worker.ended(*seqs)
            await until(lambda: held() <= before + LARGE, "the memory is given back")


@linux_only
async def test_nothing_of_it_is_left_of_a_dead_worker() -> None:
    """No descriptor and no map, after large bodies went both ways."""

    def names() -> list[str]:
        with open("/proc/self/maps") as maps:
            found = [*maps]
        for fd in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):  # the one that lists them
                found.append(os.readlink(f"/proc/self/fd/{fd}"))
        return [name for name in found if "trioserver-task-worker" in name]

    before = names()
    async with open_worker(APP, max_task_size=4 * MIB) as worker:
        await worker.run(body_app.checked, 1, bytes([1]) * MIB)
        assert len(names()) > len(before)

    assert names() == before
