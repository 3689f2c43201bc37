"""Those around a pool: posters, callers, connections that close, and what hears of tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from pool_bench import as_connection

from trioserver._errors import TaskError
from trioserver._tasks._wire import Status

if TYPE_CHECKING:
    from pool_bench import FakeStream
    from pool_world import PoolWorld

    from trioserver._tasks._job import Job
    from trioserver._tasks._values import Completion


class Boom(Exception):
    """Raised where things go wrong on purpose."""


class People:
    """Everybody around the pool of ``world``."""

    def __init__(self, world: PoolWorld) -> None:
        self.world = world
        self.random = world.random
        self.told: dict[int, int] = {}

    # Who posts

    async def post_some(self) -> None:
        """Post one task after the other, each in one way or another."""
        for _ in range(self.random.randint(1, 6)):
            await trio.sleep(self.random.uniform(0, 0.3))
            stream = self.random.choice([None, None, *self.world.streams])
            with trio.CancelScope() as scope:
                if self.random.random() < 0.3:
                    scope.deadline = trio.current_time() + self.random.uniform(0, 0.3)
                await self.post(stream)

    async def post(self, stream: FakeStream | None) -> None:
        """Post one task, and see that what comes of it is the truth."""
        world, pool = self.world, self.world.pool
        data = world.new_data()
        options = pool.options(**world.drawn_options())
        owner = None if stream is None else as_connection(stream)
        on_finish = self.on_finish if self.random.random() < 0.2 else None
        task_id = None
        try:
            if self.random.random() < 0.4:
                task_id = pool.task_nowait(data, options, stream=owner, on_finish=on_finish)
            else:
                task_id = await pool.task(data, options, stream=owner, on_finish=on_finish)
        except (trio.WouldBlock, trio.ClosedResourceError):
            pass
        finally:
            job = world.jobs.get(data[0])
            assert (None if job is None else job.id) == task_id, "what was told is not what is"
            if job is None:
                world.refused.add(data[0])

    async def call_some(self) -> None:
        """Run tasks and wait for them, not always for long enough."""
        for _ in range(self.random.randint(1, 3)):
            await trio.sleep(self.random.uniform(0, 0.5))
            seconds = self.random.choice([0.05, 0.3, 30.0]) * self.random.uniform(0.5, 1)
            with trio.move_on_after(seconds):
                await self._call()

    async def _call(self) -> None:
        world, pool = self.world, self.world.pool
        chance = self.random.random()
        items = [world.new_data() for _ in range(self.random.randint(1, 4) if chance < 0.5 else 1)]
        numbers = [number for number, _ in items]
        options = pool.options(**world.drawn_options())
        try:
            if chance < 0.5:
                completions = await pool.run_tasks(items, options)
                assert [completion.data[0] for completion in completions] == numbers
                for completion in completions:
                    self._hear(completion.data[0], "caller")
            elif chance < 0.8:
                assert await pool.run_task(items[0], options) == numbers[0]
                self._hear(numbers[0], "caller")
            else:
                assert await pool.run_sync(max, (items[0], items[0])) == numbers[0]
                self._hear(numbers[0], "caller")
        except TaskError:
            self._hear(numbers[0], "caller")
        except trio.ClosedResourceError:
            self._hear_of_those_accepted(numbers)
        except trio.Cancelled:
            self._hear_of_those_accepted(numbers)
            raise
        assert all(self._has_ended(number) for number in numbers)

    def _hear_of_those_accepted(self, numbers: list[int]) -> None:
        """The call has failed: its tasks have ended, and this is their outcome."""
        for number in numbers:
            assert self._has_ended(number), "something of the caller's runs on"
            if number in self.world.jobs:
                self._hear(number, "caller")
            else:
                self.world.refused.add(number)

    def _has_ended(self, number: int) -> bool:
        job = self.world.jobs.get(number)
        return job is None or job.status is not None

    # Who ends tasks

    async def disconnect(self, stream: FakeStream) -> None:
        """The client of ``stream`` leaves, perhaps."""
        await trio.sleep(self.random.uniform(0, 2))
        stream.is_closed = True
        self.world.trace.append(("leaves", self.world.streams.index(stream)))
        self.world.pool.cancel_of_stream(as_connection(stream))
        for job in self.world.alive:
            if job.stream is stream:
                assert job.status is not None or self._is_cancelled(job), "it outlives its client"

    async def cancel_some(self) -> None:
        """Cancel tasks by their ids."""
        for _ in range(3):
            await trio.sleep(self.random.uniform(0, 0.7))
            task_id = self.random.randint(0, len(self.world.jobs))
            is_alive = task_id in self.world.pool._jobs
            assert self.world.pool.cancel(task_id) == is_alive

    @staticmethod
    def _is_cancelled(job: Job) -> bool:
        return job.verdict is not None and job.verdict[0] == Status.CANCELLED

    # Who hears

    async def on_finish(self, completion: Completion) -> None:
        number = completion.data[0]
        self._hear(number, "on_finish")
        job = self.world.jobs[number]
        assert job.caller is None
        assert completion.stream is job.stream
        if completion.error is None:
            assert completion.result == number
        try:
            await self._finish(job)
        except trio.Cancelled:
            raise
        except BaseException:
            self.world.delivered += 1
            raise
        self.world.delivered += 1

    async def _finish(self, job: Job) -> None:
        chance = self.random.random()
        if chance < self.world.shape.hangs:
            await trio.sleep_forever()
        elif chance < 0.2:
            await trio.sleep(self.random.uniform(0, 0.3))
        elif chance < 0.3:
            await self.post(job.stream if self.random.random() < 0.5 else None)  # type: ignore[arg-type]
        elif chance < 0.4:
            raise Boom

    async def on_progress(self, task_id: int, value: object) -> None:
        assert isinstance(value, int)
        assert value > self.told.get(task_id, 0), "an older value, or the same one"
        self.told[task_id] = value
        if self.random.random() < 0.3:
            await trio.sleep(self.random.uniform(0, 0.3))

    def _hear(self, number: int, how: str) -> None:
        world = self.world
        assert number in world.jobs, "heard of what was not accepted"
        assert world.jobs[number].status is not None
        assert number not in world.heard, "heard twice"
        world.heard[number] = how
        world.trace.append((how, number, world.jobs[number].status))
