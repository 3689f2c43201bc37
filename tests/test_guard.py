"""What callbacks may raise, and what becomes of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trioserver._guard import contained, signals_are_received

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("trioserver.test")


class Name:
    """A name that counts how often it was made into text."""

    def __init__(self) -> None:
        self.count = 0

    def __str__(self) -> str:
        self.count += 1
        return "on_something"


class BadGroup(BaseExceptionGroup[BaseException]):
    """A group whose parts cannot be made."""

    def derive(self, excs: Sequence[Any], /) -> Any:
        raise RuntimeError("derive does not work")


async def raises(exc: BaseException) -> None:
    await trio.lowlevel.checkpoint()
    raise exc


async def test_a_return_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is logged, and its name is not even made into text."""
    name = Name()
    assert await contained(logger, name, trio.lowlevel.checkpoint) is None
    assert caplog.records == []
    assert name.count == 0


async def test_arguments_are_passed_on() -> None:
    """They reach the callback in order."""
    seen: list[object] = []

    async def callback(*args: object) -> None:
        await trio.lowlevel.checkpoint()
        seen.extend(args)

    await contained(logger, "on_something", callback, 1, "two")
    assert seen == [1, "two"]


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("no good"),
        SystemExit(3),
        BaseException("bare"),
        ExceptionGroup("several", [ValueError("one"), TypeError("two")]),
        BaseExceptionGroup("several", [SystemExit(3), ValueError("one")]),
        BadGroup("several", [ValueError("one")]),
        trio.TooSlowError(),
        StopAsyncIteration(),
        GeneratorExit(),
    ],
    ids=lambda exc: type(exc).__name__,
)
async def test_what_it_raises_is_logged_once(
    exc: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """One line with the traceback; the caller gets the exception and goes on."""
    assert await contained(logger, Name(), raises, exc) is exc
    (record,) = caplog.records
    assert (record.getMessage(), record.levelno) == ("on_something raised", logging.ERROR)
    assert record.exc_info is not None
    assert record.exc_info[1] is exc
    assert "in raises" in caplog.text


async def test_ctrl_c_passes(caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody receives signals, it is the program's to hear of it."""
    with pytest.raises(KeyboardInterrupt):
        await contained(logger, "on_something", raises, KeyboardInterrupt())
    assert caplog.records == []


async def test_an_interrupt_is_its_own_where_signals_are_received(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A Ctrl-C would not have come as an exception."""
    signals_are_received.set(True)
    assert await contained(logger, "on_something", raises, KeyboardInterrupt()) is not None
    assert len(caplog.records) == 1


def test_the_end_of_a_coroutine_passes(caplog: pytest.LogCaptureFixture) -> None:
    """The interpreter closes one that nobody runs any more."""
    running = contained(logger, "on_something", trio.lowlevel.cancel_shielded_checkpoint)
    running.send(None)
    running.close()
    assert caplog.records == []


@pytest.mark.parametrize("is_grouped", [False, True])
async def test_a_stale_cancellation_is_its_own(
    is_grouped: bool,  # noqa: FBT001  # pytest gives it by name
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One that was kept from a scope that has ended would end the server, in silence."""
    with trio.CancelScope() as scope:
        stale: BaseException = await cancelled_in(scope)
    if is_grouped:
        stale = BaseExceptionGroup("several", [stale])
    assert await contained(logger, "on_something", raises_at_once, stale) is not None
    assert len(caplog.records) == 1


async def test_cancellation_passes(caplog: pytest.LogCaptureFixture) -> None:
    """A cancelled callback ends its scope, silently."""
    with trio.move_on_after(0) as scope:
        await contained(logger, "on_something", trio.sleep_forever)
    assert scope.cancelled_caught
    assert caplog.records == []


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3)], ids=repr)
async def test_a_group_is_divided(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """Its Cancelled goes to the scope that wants it, and the rest of it is logged."""
    with trio.CancelScope() as scope:
        group = BaseExceptionGroup("both", [await cancelled_in(scope), error])
        await contained(logger, "on_something", raises_at_once, group)
    assert scope.cancelled_caught
    (record,) = caplog.records
    assert record.exc_info is not None
    rest = record.exc_info[1]
    assert isinstance(rest, BaseExceptionGroup)
    assert rest.exceptions == (error,)


async def test_a_group_that_cannot_be_divided(caplog: pytest.LogCaptureFixture) -> None:
    """Its Cancelled passes all the same, and the whole of it is logged."""
    with trio.CancelScope() as scope:
        group = BadGroup("both", [await cancelled_in(scope), ValueError("mine")])
        await contained(logger, "on_something", raises_at_once, group)
    assert scope.cancelled_caught
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is group


async def test_a_group_of_cancellations_alone_is_silent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nested ones too."""
    with trio.CancelScope() as scope:
        exc = await cancelled_in(scope)
        inner = BaseExceptionGroup("inner", [exc])
        await contained(
            logger, "on_something", raises_at_once, BaseExceptionGroup("outer", [inner, exc])
        )
    assert scope.cancelled_caught
    assert caplog.records == []


async def test_cancelled_while_it_cleans_up(caplog: pytest.LogCaptureFixture) -> None:
    """A callback that raises of its own because it was cancelled is logged, and the scope ends."""

    async def callback() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cleaning up")

    with trio.move_on_after(0) as scope:
        error = await contained(logger, "on_something", callback)
        assert isinstance(error, ValueError)
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert len(caplog.records) == 1


async def cancelled_in(scope: trio.CancelScope) -> trio.Cancelled:
    """Cancel ``scope``, and what Trio raises in it then."""
    scope.cancel()
    try:
        await trio.lowlevel.checkpoint()
    except trio.Cancelled as exc:  # noqa: ASYNC103  # the caller raises it
        return exc  # noqa: ASYNC104
    raise AssertionError("nothing was cancelled")


async def raises_at_once(exc: BaseException) -> None:  # noqa: ASYNC124  # a checkpoint would be cancelled
    raise exc
