"""Payloads that attack pickle: each ends as its own task's error, and the worker goes on."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

import check_app
import pytest
import task_app
from task_pools import open_tasks

from trioserver import TaskFailed

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("form")

MAX_TASK_SIZE = 100_000


class Attack:
    """Pickles as ``how`` says."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        return attacks[self.how]()  # type: ignore[no-any-return]  # whatever it is


def throw(exc: BaseException) -> NoReturn:
    raise exc


def unpickled(function: Callable[..., object], *args: object) -> Callable[[], tuple[Any, ...]]:
    """Pickles well; the function is called when it is unpickled."""
    return lambda: (function, args)


attacks: dict[str, Callable[[], Any]] = {
    "raises": lambda: throw(RuntimeError("no")),
    "exits": lambda: throw(SystemExit(3)),
    "is interrupted": lambda: throw(KeyboardInterrupt()),
    "closes": lambda: throw(GeneratorExit()),
    "gives nonsense": lambda: (1, 2, 3, 4, 5, 6, 7),
    "gives a lambda": lambda: ((lambda: None), ()),
    "recurses": lambda: (list, (Attack("recurses"),)),
    "raises there": unpickled(throw, RuntimeError("no")),
    "exits there": unpickled(sys.exit, 3),
    "is interrupted there": unpickled(throw, KeyboardInterrupt()),
    "needs more": unpickled(int, "no number"),
    "needs all memory": unpickled(bytes, 2**62),
    "is too large": lambda: (len, (bytes(2 * MAX_TASK_SIZE),)),
}


def attack(how: str) -> Attack:
    return Attack(how)


def attack_within(how: str) -> list[object]:
    return ["a", {"b": (Attack(how),)}]


class AttackError(Exception):
    """An exception that pickles as ``how`` says."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        return attacks[self.how]()  # type: ignore[no-any-return]  # see above


def raise_attack(how: str) -> NoReturn:
    raise AttackError(how)


def raise_attack_in_a_group(how: str) -> NoReturn:
    raise ExceptionGroup("two", [ValueError("one"), AttackError(how)])


class Liar:
    """Even to ask what it is has consequences."""

    @property  # type: ignore[misc]  # it lies
    def __class__(self) -> Any:
        sys.exit(4)


def liar() -> object:
    return Liar()


class Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]  # it lies
        sys.exit(5)


class NamelessThing(metaclass=Nameless):
    def __reduce__(self) -> NoReturn:
        sys.exit(6)


def nameless() -> object:
    return NamelessThing()


def deep() -> list[object]:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


def open_file() -> object:
    return open(__file__)  # the interpreter closes it


def generator() -> object:
    return (number for number in range(3))


def local_class() -> object:
    class Local: ...

    return Local()


def local_exception() -> NoReturn:
    class LocalError(Exception): ...

    raise LocalError("text")


def large() -> bytes:
    return bytes(2 * MAX_TASK_SIZE)


def large_exception() -> NoReturn:
    raise ValueError("x" * 2 * MAX_TASK_SIZE)


RESULTS: list[tuple[Callable[..., object], tuple[Any, ...]]] = [
    *((attack, (how,)) for how in attacks),
    *((attack_within, (how,)) for how in attacks),
    *((raise_attack, (how,)) for how in attacks),
    *((raise_attack_in_a_group, (how,)) for how in attacks),
    (liar, ()),
    (nameless, ()),
    (deep, ()),
    (open_file, ()),
    (generator, ()),
    (local_class, ()),
    (local_exception, ()),
    (task_app.function, ()),
    (task_app.lock, ()),
    (task_app.recurse, ()),
    (task_app.coroutine, ()),
    (task_app.fail, (task_app.NeedsTwo, "one", "two")),
    (task_app.fail, (task_app.Keeps,)),
    (task_app.fail, (task_app.Silent,)),
    (task_app.fail, (task_app.Unreduced, "text")),
    (task_app.fail, (task_app.Exits, "text")),
    (task_app.fail, (task_app.OnlyThere, "text")),
    (large, ()),
    (large_exception, ()),
]


@pytest.mark.parametrize("app", [check_app.App, check_app.CoroutineApp])
async def test_results_and_exceptions(app: type) -> None:
    """C12: each is its own task's `TaskFailed`, with words; good ones between are intact."""
    async with open_tasks(1, app, max_task_size=MAX_TASK_SIZE) as tasks:
        (pid,) = tasks.pids
        items: list[tuple[Any, ...]] = []
        for function, args in RESULTS:
            items += [(function, *args), (task_app.echo, "good")]
        outcomes = await tasks.pool.run_tasks(items)
        assert await tasks.run(task_app.pid) == pid
        statistics = tasks.pool.statistics()

    for item, outcome in zip(items, outcomes, strict=True):
        if item[0] is task_app.echo:
            assert outcome.result == "good"
        else:
            assert isinstance(outcome.error, TaskFailed), item
            assert outcome.error.summary, item
            assert outcome.task_worker == 0
    assert (statistics.failed, statistics.completed) == (len(RESULTS), len(RESULTS) + 1)
    assert statistics.crashed == 0


async def test_what_was_raised_is_told_in_words() -> None:
    """Also where the exception itself does not survive."""
    async with open_tasks(max_task_size=MAX_TASK_SIZE) as tasks:
        for how in attacks:
            with pytest.raises(TaskFailed, match=rf"^AttackError: {how}\n") as caught:
                await tasks.run(raise_attack, how)
            assert caught.value.original is None
            assert "in raise_attack\n" in caught.value.remote_traceback


async def test_data_that_cannot_be_pickled() -> None:
    """C12: TypeError at the caller; nothing was accepted, and nothing was sent."""
    async with open_tasks() as tasks:
        (pid,) = tasks.pids
        for how in ("raises", "gives nonsense", "gives a lambda", "recurses"):
            for post in (tasks.post, tasks.run):
                with pytest.raises(TypeError, match=r"^the task's data of type tuple cannot be pi"):
                    await post(task_app.echo, Attack(how))
        with pytest.raises(TypeError, match=r"^echo with its arguments of type tuple cannot be pi"):
            await tasks.pool.run_sync(task_app.echo, threading.Lock())
        assert tasks.pool.statistics().posted == 0
        assert await tasks.run(task_app.pid) == pid


async def test_data_that_cannot_be_unpickled() -> None:
    """It was accepted, and the task has failed; its worker goes on with the next one."""
    async with open_tasks() as tasks:
        (pid,) = tasks.pids
        for how in attacks:
            if "there" in how or "needs" in how:
                items = [(task_app.echo, Attack(how)), (task_app.pid,)]
                failed, behind = await tasks.pool.run_tasks(items)
                assert isinstance(failed.error, TaskFailed), how
                assert behind.result == pid


async def test_a_result_of_a_gibibyte() -> None:
    """At the default max_task_size it is that task's error; worker and pool go on."""
    async with open_tasks() as tasks:
        (pid,) = tasks.pids
        problem = r"^ValueError: the task's result is 10737\d+ bytes pickled, more than max_task_"
        with pytest.raises(TaskFailed, match=problem):
            await tasks.pool.run_sync(bytes, 2**30)
        assert await tasks.run(task_app.pid) == pid
