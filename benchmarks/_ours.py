"""A server of ours in this process, asked to do what peers do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from benchmarks import _durations
from benchmarks._meter import Meter
from benchmarks._work import Same
from trioserver import Settings, serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks._suite import Figure
    from trioserver import Completion, Server

ResultT = TypeVar("ResultT")


def settings(workers: int, in_flight: int) -> Settings:
    """Those with which ``in_flight`` tasks are queued or running at a time."""
    return Settings(
        bind="127.0.0.1:0",
        task_worker_num=workers,
        max_queued_tasks=max(1, in_flight - workers),
        log_level="warning",
    )


def with_server(
    app: object, its_settings: Settings, measure: Callable[[Server], Awaitable[ResultT]]
) -> ResultT:
    """What ``measure`` finds with a server that then stops as servers do."""

    async def main() -> ResultT:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve, app, its_settings)
            found = await measure(server)
            server.shutdown()
        return found

    return trio.run(main)


async def rate_under_load(
    post: Callable[[], Awaitable[object]], finished: Callable[[], int]
) -> Figure:
    """Tasks a second while ``post`` is called for as long as it returns.

    Args:
      finished: How many have finished until now.
    """

    async def post_all() -> None:
        while True:
            await post()

    async with trio.open_nursery() as posting:
        posting.start_soon(post_all)
        await trio.sleep(_durations.warm_up())
        before = finished()
        meter = Meter()
        await trio.sleep(_durations.SECONDS)
        figure = meter.rate(finished() - before)
        posting.cancel_scope.cancel()
    return figure


def rate_of_same(workers: int, in_flight: int, data: object, *, by_app: bool) -> Figure:
    """Tasks a second that give back ``data``.

    Args:
      by_app: Whether the app's ``on_finish`` hears of them, or one that is given with each.
    """
    finished = 0

    async def count(completion: Completion) -> None:  # noqa: ASYNC124  # as it must be
        nonlocal finished
        # Peers unpickle every result, so results are looked at here too.
        assert completion.error is None
        finished += 1

    async def measure(server: Server) -> Figure:
        if by_app:
            return await rate_under_load(partial(server.task, data), lambda: Same.finished)
        return await rate_under_load(partial(server.task, data, on_finish=count), lambda: finished)

    return with_server(Same, settings(workers, in_flight), measure)
