"""What event workers may ask of the one dispatcher, what they may not, and the bounds for all."""

from __future__ import annotations

import math
import pickle
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from model_engine import ModelEngine
from through_manager import EventWorker, open_desk, open_event_worker
from trio.testing import wait_all_tasks_blocked

from trioserver._pacing import Pacer
from trioserver._processes._channel import _POST, Say
from trioserver._settings import Settings
from trioserver._stopping import Stopping
from trioserver._tasks._admission import CLOSED
from trioserver._tasks._pool_life import open_pool
from trioserver._tasks._wire import Answer, Failure, Status, WireError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trioserver import Completion
    from trioserver._processes._channel import Record
    from trioserver._processes._guest import Desk
    from trioserver._tasks._job import Job
    from trioserver._tasks._pool import Pool


class Users:
    """Of a class that a pickle has to look up."""


class Audit:
    """Counts what is looked up for a pickle while the manager's side is at work."""

    def __init__(self) -> None:
        self.depth = 0
        self.seen = {True: 0, False: 0}
        sys.addaudithook(self.hook)

    def hook(self, event: str, _args: object) -> None:
        if event == "pickle.find_class":
            self.seen[self.depth > 0] += 1

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: object) -> Any:
            self.depth += 1
            try:
                return function(*args)
            finally:
                self.depth -= 1

        return watched


GOOD = _POST.pack(0, False, math.inf, math.inf, 0, -1)


class Several:
    """A model engine of one worker, a desk, and the pools of event workers at it."""

    def __init__(self, desk: Desk, engine: ModelEngine) -> None:
        self.desk = desk
        self.engine = engine
        self.workers: list[EventWorker] = []
        self.pools: list[Pool] = []
        self.finished: list[list[Completion]] = []
        self.values: list[object] = []

    async def open(self, stack: AsyncExitStack, settings: Settings) -> None:
        worker = await stack.enter_async_context(open_event_worker(self.desk, len(self.workers)))
        finished: list[Completion] = []

        async def on_finish(completion: Completion) -> None:
            finished.append(completion)

        async def on_progress(_task_id: int, value: object) -> None:
            self.values.append(value)

        pool = await stack.enter_async_context(
            open_pool(worker.dispatcher, on_finish, on_progress, settings, Stopping(5), Pacer())
        )
        self.workers.append(worker)
        self.pools.append(pool)
        self.finished.append(finished)

    def post(self, number: int, data: object = None, **options: Any) -> int:
        options = {"timeout": None, "queue_timeout": math.inf, "retries": 0, **options}
        pool = self.pools[number]
        asked = pool.options(task_worker=options.pop("task_worker", None), **options)
        return pool.task_nowait(data, asked, stream=None, on_finish=None)

    async def run_out(self) -> None:
        """Have the worker run whatever there is, and everybody hear of it."""
        while True:
            await wait_all_tasks_blocked()
            if not self.engine.workers[0].orders:
                return
            self.engine.run(0)


@asynccontextmanager
async def open_several(count: int = 1, **settings: Any) -> AsyncIterator[Several]:
    engine, checked = ModelEngine(), Settings(**settings)
    with trio.fail_after(30):
        async with AsyncExitStack() as stack:
            desk = await stack.enter_async_context(open_desk(engine.dispatcher, checked))
            several = Several(desk, engine)
            for _ in range(count):
                await several.open(stack, checked)
            yield several
            await several.run_out()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Say.POST, b""),
        (Say.POST, GOOD[:-1]),
        (Say.POST, _POST.pack(2, False, math.inf, math.inf, 0, -1)),
        (Say.POST, _POST.pack(0, False, math.nan, math.inf, 0, -1)),
        (Say.POST, _POST.pack(0, False, -1.0, math.inf, 0, -1)),
        (Say.POST, _POST.pack(0, False, math.inf, 0.0, 0, -1)),
        (Say.POST, _POST.pack(0, False, math.inf, math.nan, 0, -1)),
        (Say.POST, _POST.pack(0, False, math.inf, math.inf, 0, -2)),
        (Say.POST, _POST.pack(0, False, math.inf, math.inf, 0, 1)),
    ],
    ids=[
        "empty",
        "short",
        "kind",
        "timeout",
        "negative",
        "queue_timeout",
        "nan",
        "worker",
        "there-is-none",
    ],
)
async def test_what_cannot_have_been_posted_is_refused(kind: Say, body: bytes) -> None:
    """What came before it was taken, what came with it after it is not, and the books are whole."""
    async with open_several(2) as several:
        guest = several.workers[0].guest
        records: list[Record] = [
            (Say.POST, 50, GOOD + b"x"),
            (kind, 51, body),
            (Say.POST, 52, GOOD),
        ]
        with pytest.raises(WireError):
            guest.hear(records)
        assert list(guest.jobs) == [50]
        assert several.desk.held_bytes == 1
        several.workers[0].die()
        several.post(1)
        await several.run_out()
        assert len(several.finished[1]) == 1
        assert several.engine.dispatcher.statistics().is_balanced
        assert several.engine.dispatcher.statistics().abandoned == 1


async def test_an_id_is_posted_once() -> None:
    """While its task has not ended."""
    async with open_several() as several:
        guest = several.workers[0].guest
        with pytest.raises(WireError):
            guest.hear([(Say.POST, 50, GOOD), (Say.POST, 50, GOOD)])
        several.workers[0].die()


async def test_what_is_not_for_the_dispatcher_is_left() -> None:
    """And the end of an unknown task is the end of none."""
    async with open_several() as several:
        guest = several.workers[0].guest
        others = guest.hear([(Say.PONG, 1, b""), (Say.CANCEL, 999, b"\xff"), (99, 0, b"?")])
        assert others == [(Say.PONG, 1, b""), (99, 0, b"?")]


async def test_a_task_for_a_worker_that_has_left_ends_as_cancelled() -> None:
    """Its number was right when it was posted, so nobody is to blame."""
    async with open_several() as several:
        several.desk.most_workers = 2
        several.workers[0].desk.room.publish(0, 1, 0, 2)
        several.post(0, task_worker=1)
        await wait_all_tasks_blocked()
        (completion,) = several.finished[0]
        assert str(completion.error) == (
            "the task was cancelled before it began: there is no task worker 1 any more"
        )
        several.post(0)


async def test_the_bound_is_one_for_all_and_exact() -> None:
    """One task begins, four wait, and nobody gets a fifth one in, before or after they arrive."""
    async with open_several(2, max_queued_tasks=4) as several:
        for number in (0, 0, 1, 0, 1):
            several.post(number)
        for _ in range(2):
            for number in (0, 1):
                with pytest.raises(trio.WouldBlock):
                    several.post(number)
            await wait_all_tasks_blocked()
        several.engine.run(0)
        several.post(1)
        with pytest.raises(trio.WouldBlock):
            several.post(0)


async def test_the_bound_of_bytes_is_one_for_all() -> None:
    """Whoever has posted them."""
    size = len(pickle.dumps(bytes(500), pickle.HIGHEST_PROTOCOL))
    async with open_several(2, max_queued_bytes=2 * size) as several:
        for number in (0, 1):
            several.post(number, bytes(500))
        for number in (0, 1):
            with pytest.raises(trio.WouldBlock):
                several.post(number)
        await several.run_out()
        several.post(0, bytes(5000))


@pytest.mark.parametrize(
    ("settings", "data"),
    [
        ({"max_queued_tasks": 1}, None),
        ({"max_queued_tasks": 2}, None),
        ({"max_queued_bytes": 700}, bytes(500)),
    ],
    ids=["1 task", "2 tasks", "bytes"],
)
async def test_all_who_wait_get_in(settings: dict[str, int], data: object) -> None:
    """In both event workers, as tasks end one by one."""
    async with open_several(2, **settings) as several, trio.open_nursery() as posting:

        async def post(pool: Pool) -> None:
            await pool.task(data, stream=None, on_finish=None)

        for pool in several.pools * 20:
            posting.start_soon(post, pool)
        for _ in range(40):
            await wait_all_tasks_blocked()
            several.engine.run(0)
        await wait_all_tasks_blocked()
        assert [len(finished) for finished in several.finished] == [20, 20]


async def test_one_who_waits_is_let_in_when_one_dies_with_all_on_its_way() -> None:
    """Nothing else would ever change."""
    async with open_several(2, max_queued_tasks=1) as several, trio.open_nursery() as posting:
        several.desk.room.posted(0, 10)
        several.desk.room.posted(0, 10)
        posting.start_soon(lambda: several.pools[1].task(None, stream=None, on_finish=None))
        await wait_all_tasks_blocked()
        assert several.workers[1].guest.wants_room
        several.workers[0].die()
        await several.run_out()
        assert len(several.finished[1]) == 1


async def test_one_who_waits_for_its_own_on_finish_is_not_told_of_room() -> None:
    """There is some, and telling would be answered with the same wish, without end."""
    async with open_several(max_queued_tasks=1) as several, trio.open_nursery() as posting:
        entrance = several.pools[0]._entrance
        entrance.unheard = 1
        posting.start_soon(lambda: several.pools[0].task(None, stream=None, on_finish=None))
        await wait_all_tasks_blocked()
        assert several.workers[0].guest.wants_room
        entrance.unheard = 0
        entrance.call()


async def test_posts_and_values_of_a_task_leave_at_once() -> None:
    """Though nothing ends for a long time."""
    async with open_several() as several:
        parent = several.post(0)
        await wait_all_tasks_blocked()
        several.engine.begin(0)
        several.engine.dispatcher.progressed(0, [(1, pickle.dumps("half"))])
        await wait_all_tasks_blocked()
        assert several.values == ["half"]
        several.engine.dispatcher.posted(0, 1, pickle.dumps("child"))
        await wait_all_tasks_blocked()
        (_, answer, child, _) = several.engine.answers[0]
        assert answer == Answer.ACCEPTED
        assert {*several.pools[0]._jobs} == {parent, child}
        assert several.desk.room.look().waiting == 1
        several.engine.end(0)


async def test_what_a_task_posts_after_the_end_of_its_pool_is_cancelled() -> None:
    """It was accepted before it could be known that nothing is any more."""
    async with open_several() as several:
        several.post(0)
        await wait_all_tasks_blocked()
        several.engine.begin(0)
        several.pools[0].close()
        several.engine.dispatcher.posted(0, 1, pickle.dumps("child"))
        await wait_all_tasks_blocked()
        assert [str(completion.error) for completion in several.finished[0]] == [
            f"the task was cancelled before it began: {CLOSED}"
        ]
        several.engine.end(0)


async def test_tasks_post_no_more_than_on_finish_hears() -> None:
    """Where they run, it is known how much is unheard at once, and when it is heard."""
    async with open_several(max_queued_tasks=3) as several:
        several.post(0)
        await wait_all_tasks_blocked()
        several.engine.begin(0)
        several.workers[0].dispatcher.has_unheard(3, 0)
        several.engine.dispatcher.posted(0, 1, pickle.dumps("child"))
        several.workers[0].dispatcher.has_unheard(2, 0)
        several.engine.dispatcher.posted(0, 1, pickle.dumps("child"))
        assert [answer[1:] for answer in several.engine.answers] == [
            (Answer.FULL, 0, "3 completions wait for on_finish"),
            (Answer.ACCEPTED, 1, ""),
        ]
        several.engine.end(0)


async def test_values_for_one_who_does_not_read_are_the_newest_only() -> None:
    """Memory does not grow with them, and the last one still comes before the end."""
    async with open_several() as several:
        several.post(0)
        await wait_all_tasks_blocked()
        several.engine.begin(0)
        # All in one turn: nothing is read meanwhile.
        several.engine.dispatcher.progressed(0, [(1, pickle.dumps(bytes(2**22)))])
        unsent = several.workers[0].ours.unsent
        assert unsent > 0
        for value in range(100):
            several.engine.dispatcher.progressed(0, [(1, pickle.dumps((value, bytes(2**16))))])
        assert several.workers[0].ours.unsent == unsent
        await wait_all_tasks_blocked()
        assert len(several.workers[0].guest._values) == 0
        several.engine.end(0)
        await wait_all_tasks_blocked()
    assert several.values[-1] == (99, bytes(2**16))
    assert len(several.values) <= 3


async def test_the_tasks_of_a_dead_one() -> None:
    """Those of its connections are cancelled, others run on; nobody hears, and all are counted."""
    async with open_several(2) as several:
        several.post(0)
        await wait_all_tasks_blocked()
        guest = several.workers[0].guest
        owned = _POST.pack(0, True, math.inf, math.inf, 0, -1)
        guest.hear([(Say.POST, 50, owned), (Say.POST, 51, GOOD)])
        jobs: list[Job] = [*guest.jobs.values()]
        assert several.workers[0].guest.leave() == 3
        assert [job.status for job in jobs] == [None, Status.CANCELLED, None]
        several.post(1)
        await several.run_out()
        assert [job.status for job in jobs] == [Status.OK, Status.CANCELLED, Status.OK]
        statistics = several.engine.dispatcher.statistics()
        assert (statistics.abandoned, statistics.is_balanced) == (3, True)
        assert (len(several.finished[0]), len(several.finished[1])) == (0, 1)
        several.pools[0]._jobs.clear()


async def test_the_manager_unpickles_nothing_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither data nor results, failures, values or what tasks post; who posted it does."""
    audit, users = Audit(), pickle.dumps(Users())
    monkeypatch.setattr(EventWorker, "hear_guest", audit.watch(EventWorker.hear_guest))
    async with open_several() as several:
        dispatcher = several.engine.dispatcher
        for name in ("reported", "progressed", "posted", "cancel", "worker_died", "look_after"):
            monkeypatch.setattr(dispatcher, name, audit.watch(getattr(dispatcher, name)))
        several.post(0, Users())
        several.post(0, Users())
        await wait_all_tasks_blocked()
        several.engine.begin(0)
        dispatcher.progressed(0, [(1, users)])
        dispatcher.posted(0, 1, users)
        await wait_all_tasks_blocked()
        several.engine.finish(0, body=users)
        several.engine.send(0)
        several.engine.begin(0)
        failure = Failure("Users: no", "", pickle.dumps(Users())).pack()
        several.engine.finish(0, status=Status.FAILED, body=failure)
        several.engine.send(0)
        await several.run_out()
        for completion in several.finished[0]:
            assert isinstance(completion.data, Users)
        assert isinstance(several.finished[0][0].result, Users)
        assert isinstance(several.values[0], Users)
    assert audit.seen[False] >= 4
    assert audit.seen[True] == 0
