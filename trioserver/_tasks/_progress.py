"""Values on their way from `Task.progress` to ``on_progress``: the newest one of each task.

One call a task at a time. What comes while it runs replaces what came before, so a slow
``on_progress`` misses values and holds up nothing but the ``on_finish`` of its own task, which is
the last that is heard of one.
"""

from __future__ import annotations

import pickle
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trioserver._tasks._finishing import Call, FinishLoops
    from trioserver._tasks._job import Job

    OnProgress = Callable[[int, object], Awaitable[object]]


class Progress:
    """Calls ``on_progress``.

    Args:
      loops: Make the calls.
      on_progress: None where the app has none.
      on_called: Called when a call has returned.
    """

    def __init__(
        self, loops: FinishLoops, on_progress: OnProgress | None, on_called: Callable[[], None]
    ) -> None:
        self._loops = loops
        self._on_progress = on_progress
        self._on_called = on_called
        # Of each task whose call is on its way or runs; None once the call has taken it.
        self._newest: dict[Job, bytes | None] = {}
        # What waits for such a call of its task.
        self._last: dict[Job, Call] = {}

    def __len__(self) -> int:
        """Calls that are on their way or run."""
        return len(self._newest)

    def tell(self, job: Job, body: bytes) -> None:
        """``job`` runs, and has told a value."""
        if self._on_progress is None:
            return
        is_on_its_way = job in self._newest
        self._newest[job] = body
        if not is_on_its_way:
            self._call_soon(job)

    @property
    def is_calling(self) -> bool:
        """Whether there is a call that `keeps` may keep another one for."""
        return bool(self._newest)

    def keeps(self, job: Job, call: Call) -> bool:
        """``job`` has ended: whether ``call`` is to wait until ``on_progress`` has returned.

        Then it is made after that.
        """
        if job not in self._newest:
            return False
        self._last[job] = call
        return True

    def let_last_go(self) -> None:
        """Have the last calls made that still wait: what they wait for has had its time."""
        for call in self._last.values():
            self._loops.call_soon(call)
        self._last.clear()

    def _call_soon(self, job: Job) -> None:
        try:
            self._loops.call_soon(("on_progress", job, self._call, job, self._called))
        except trio.ClosedResourceError:  # the pool has come to its end
            del self._newest[job]

    async def _call(self, job: Job) -> None:
        body = self._newest[job]
        self._newest[job] = None
        assert body is not None
        assert self._on_progress is not None
        await self._on_progress(job.id, pickle.loads(body))

    def _called(self, job: Job) -> None:
        if self._newest[job] is not None and job.status is None:
            self._call_soon(job)
        else:
            del self._newest[job]
            last = self._last.pop(job, None)
            if last is not None:
                with suppress(trio.ClosedResourceError):  # the pool has counted what it cut
                    self._loops.call_soon(last)
        self._on_called()
