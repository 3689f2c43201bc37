"""How long a task pool lives, and how it comes to its end."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from trioserver._stopping import GRACE
from trioserver._tasks._calls import KILL_TIME
from trioserver._tasks._pool import Pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trioserver._pacing import Pacer
    from trioserver._settings import Settings
    from trioserver._stopping import Stopping
    from trioserver._tasks._finishing import OnFinish
    from trioserver._tasks._pool_dispatcher import PoolDispatcher
    from trioserver._tasks._progress import OnProgress

logger = logging.getLogger("trioserver.tasks")

_DELIVERY_TIME: Final = 5.0
"""Seconds at the most that a stop goes on for completions, as long as they are being heard."""


@asynccontextmanager
async def open_pool(
    dispatcher: PoolDispatcher,
    on_finish: OnFinish,
    on_progress: OnProgress | None,
    settings: Settings,
    stopping: Stopping,
    pacer: Pacer,
) -> AsyncIterator[Pool]:
    """A pool over ``dispatcher``, and the loops that deliver its completions.

    On a regular exit tasks go on until the deadline of ``stopping``, those that are posted
    meanwhile too; what is left then ends as `TaskCancelled`, and is delivered as everything else.
    When the body raises or is cancelled, tasks are ended at once and nothing is delivered.
    What was cut is counted in ``stopping.cut``.
    """
    async with trio.open_nursery() as finishing:
        pool = Pool(dispatcher, finishing, on_finish, on_progress, settings, pacer)
        try:
            yield pool
            with stopping.until_deadline():
                await pool.wait_idle()
        except BaseException:
            stopping.cut += pool.undelivered
            pool.close_finish_loops()
            raise
        finally:
            pool.close()
            stopping.cut += pool.cancel_all("the server stopped")
        # What runs is being killed, and its completions are worth more than a strict deadline.
        with trio.move_on_after(KILL_TIME):
            await pool.wait_ended()
        pool.deliver_all()
        with stopping.for_a_stage():
            await pool.wait_idle()
        # There may be many, and each that is heard is worth a little more time.
        with trio.move_on_after(_DELIVERY_TIME):
            await pool.wait_while_heard(GRACE)
        if pool.undelivered:
            logger.error("%d completions were not delivered in time", pool.undelivered)
            stopping.cut += pool.undelivered
            finishing.cancel_scope.cancel()
        pool.close_finish_loops()
