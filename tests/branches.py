"""Several event workers at one dispatcher, in Trio's time, by seed: one world for all of them.

What they and the manager say to each other travels in pieces, and takes its time.
"""

from __future__ import annotations

import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
from pool_bench import FakeStream
from pool_people import People
from pool_world import PoolWorld
from through_manager import EventWorker, connected

from trioserver._processes._remote import RemoteDispatcher
from trioserver._tasks._wire import Kind

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from contextlib import ExitStack
    from random import Random

    from pool_world import PoolShape

    from trioserver._processes._guest import Desk, Guest
    from trioserver._tasks._job import Job
    from trioserver._tasks._pool import Pool

PATIENCE = 2.0
"""Seconds of the model after which one who waits though there is room waits in vain."""


def number_of(job: Job) -> int:
    """The number in its data."""
    loaded = pickle.loads(job.payload)
    return int(loaded[1][0][0] if job.kind == Kind.CALL else loaded[0])


class ManagerWorld(PoolWorld):
    """Task workers, and the ledger of their dispatcher, which nobody posts to directly."""

    def __init__(self, shape: PoolShape, random: Random) -> None:
        super().__init__(shape, random)
        self.desk: Desk
        self.branches: list[Branch] = []
        self.guests: list[Guest] = []

    def accepted(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            number = number_of(job)
            assert number not in self.jobs, "accepted twice"
            self.jobs[number] = job
            self.numbers[job] = number
            self.trace.append(("accepted", number))
        self.see_workers()

    def check(self) -> None:
        """At every moment: bounds, and the sums."""
        alive = [job for job in self.jobs.values() if job.status is None]
        settings, policy = self.shape.settings, self.shape.policy
        held = sum(len(job.payload) for job in alive)
        assert self.desk.held_bytes == held
        assert held <= settings.max_queued_bytes or len(alive) == 1
        waiting, running = self.counts
        assert waiting + running == len(alive)
        self.see_workers()
        most = settings.max_queued_tasks + self._most_workers * policy.concurrency
        assert waiting + running <= most
        assert sum(len(guest.jobs) for guest in self.guests) == len(alive)
        told = self.dispatcher.statistics()
        assert told.is_balanced
        lost = sum(len(branch.unarrived) for branch in self.branches if branch.is_dead)
        assert told.posted == len(self.jobs) + lost


class CountingRemote(RemoteDispatcher):
    """Tells its branch what its pool has let in."""

    branch: Branch

    def accept(self, job: Job) -> None:
        if not self.branch.is_dead:  # else no process is there that could post it
            super().accept(job)
        self.branch.accepted(job)

    def _has_posted(self, task_id: int, body: bytes) -> None:
        super()._has_posted(task_id, body)
        self.branch.accepted(self._jobs[task_id])


class CountingWorker(EventWorker):
    """An event worker with such a dispatcher."""

    dispatcher_type = CountingRemote


class Branch:
    """One event worker, its connections, and what they have heard: a world for its `People`."""

    def __init__(self, world: ManagerWorld) -> None:
        self.world = world
        self.shape = world.shape
        self.random = world.random
        self.trace = world.trace
        self.new_data = world.new_data
        self.streams = [FakeStream() for _ in range(2)]
        self.pool: Pool
        self.jobs: dict[int, Job] = {}
        self.refused: set[int] = set()
        self.heard: dict[int, str] = {}
        self.delivered = 0
        self.alive: set[Job] = set()
        self.guest: Guest
        self.is_dead = False
        # How many ends it had heard of when it died.
        self.heard_before = 0
        # What it had posted by then, and the manager never had.
        self.unarrived: set[int] = set()

    def die(self, ends: int) -> None:
        """As of now it hears nothing; so many ends have arrived by now."""
        self.is_dead = True
        self.heard_before = ends - self.pool._entrance.unheard
        self.unarrived = self.jobs.keys() - self.world.jobs.keys()

    @property
    def tasks(self) -> list[Job]:
        """All that the manager has had of it."""
        return [job for job in self.world.jobs.values() if job.sink is self.guest]

    def drawn_options(self) -> dict[str, Any]:
        return self.world.drawn_options()

    def accepted(self, job: Job) -> None:
        number = number_of(job)
        assert number not in self.jobs, "posted twice"
        self.jobs[number] = job

    async def watch(self) -> None:
        """See that nobody waits in line though there is room, until cancelled."""
        since: dict[object, float] = {}
        while True:
            await trio.sleep(0.2)
            entrance, now = self.pool._entrance, trio.current_time()
            stuck: set[object] = set()
            for line in (entrance._for_on_finish, entrance._for_others):
                if line.line and line._has_room(line.line[0].job):
                    stuck.add(line.line[0])
            since = {place: since.get(place, now) for place in stuck}
            assert all(now - began < PATIENCE for began in since.values()), (
                "one waits though there is room"
            )


class BranchPeople(People):
    """Those around the pool of a branch."""

    branch: Branch

    def _has_ended(self, number: int) -> bool:
        return self.branch.is_dead or super()._has_ended(number)

    def _hear(self, number: int, how: str) -> None:
        if not self.branch.is_dead:  # else nothing of what it still does is real
            super()._hear(number, how)

    async def disconnect(self, stream: FakeStream) -> None:
        await trio.sleep(self.random.uniform(0, 2))
        stream.is_closed = True
        self.world.pool.cancel_of_stream(stream)


class Relay:
    """Carries bytes between two ends in pieces, each after a while."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._slowness = random.choice([0.0, 0.001, 0.02])

    def __call__(
        self, stack: ExitStack, nursery: trio.Nursery
    ) -> tuple[socket.socket, socket.socket]:
        ours, left = connected(stack)
        right, theirs = connected(stack)
        nursery.start_soon(self._carry, left, right)
        nursery.start_soon(self._carry, right, left)
        return ours, theirs

    async def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(ConnectionError):
            while True:
                await trio.lowlevel.wait_readable(source)
                data = source.recv(self._random.choice([1, 20, 300, 100_000]))
                if not data:
                    return
                if self._random.random() < 0.5:
                    await trio.sleep(self._random.uniform(0, self._slowness))
                while data:
                    try:
                        data = data[target.send(data) :]
                    except BlockingIOError:
                        await trio.lowlevel.wait_writable(target)
