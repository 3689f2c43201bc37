"""Noticing that the one long call into a worker goes on, before trio-parallel acts upon that.

Nothing makes that call go on but the end of its worker's pipes. trio-parallel takes this for the
worker's death, and joins the process in the event loop's thread. A task that closes all descriptors
of its process would have the whole server wait there for as long as it likes.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

ResultT = TypeVar("ResultT")


@types.coroutine
def run_noticed(
    call: Coroutine[Any, Any, ResultT], on_move: Callable[[], None]
) -> Generator[Any, Any, ResultT]:
    """Await ``call``; ``on_move`` is called whenever it has gone on and waits anew.

    Trio's traps are passed on as they are. ``on_move`` must not raise: the trap has parked this
    Trio task already, and only Trio can wake it.
    """
    resume: Callable[[Any], Any] = call.send
    value: Any = None
    while True:
        try:
            trap = resume(value)
        except StopIteration as done:
            result: ResultT = done.value
            return result
        on_move()
        try:
            value = yield trap
            resume = call.send
        except BaseException as exc:  # noqa: ASYNC103, BLE001  # it belongs to `call`
            value = exc
            resume = call.throw
