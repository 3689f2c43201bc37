"""Runs orders concurrently: the loop of a worker whose ``on_task`` is a coroutine function.

Rules:

1. Orders begin in their order, as many at once as there may be, each in a Trio task and a cancel
   scope of its own.
2. A task that its scope has ended was cancelled. One that returns or raises nevertheless has done
   that, as Trio has it.
3. Whatever a task raises, a `trio.Cancelled` that is not of its scope included, is its own failure:
   nothing that comes out of it reaches the nursery. A Trio task in which a nursery was left open
   can only exit with an error, so such a wreck is kept until the loop ends.

The one module of those in a task worker that imports Trio; it is loaded only where it is needed.
"""

from __future__ import annotations

import contextvars
from time import monotonic
from typing import TYPE_CHECKING

import trio

from trioserver._tasks._leaving import leave
from trioserver._tasks._lifeline import is_forked
from trioserver._tasks._link import Disconnected
from trioserver._tasks._payloads import load
from trioserver._tasks._running_orders import pack_failure, pack_result, run_order
from trioserver._tasks._task import Task
from trioserver._tasks._wire import Kind, Order, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trioserver._tasks._link import Link
    from trioserver._tasks._task import TaskLink

    OnTaskAsync = Callable[[Task], Awaitable[object]]


def run_together(link: Link, worker_id: int, on_task: OnTaskAsync, task_concurrency: int) -> None:
    """Run what comes, ``task_concurrency`` orders at once, until one says stop.

    It ends the process where the dispatcher cannot be reached.
    """
    loop = _Loop(link, worker_id, on_task, task_concurrency)
    try:
        trio.run(loop.run)
    except BaseExceptionGroup:
        if not loop.has_wrecks:
            raise


async def run_order_async(
    on_task: OnTaskAsync,
    order: Order,
    worker_id: int,
    link: TaskLink,
    max_task_size: int,
    scope: trio.CancelScope,
) -> tuple[int, bytes]:
    """Run one order of `Kind.TASK`; see `run_order`.

    Args:
      on_task: The app's, a coroutine function.
      order: The task.
      worker_id: Where it runs.
      link: What the task can do.
      max_task_size: Bytes of its pickled result at the most.
      scope: Entered here; whoever cancels it cancels the task.
    """
    seq, task_id, attempt, _, body = order
    try:
        with scope:
            task = Task(task_id, load(body), worker_id, attempt, link, seq)
            return Status.OK, pack_result(await on_task(task), max_task_size)
    except BaseException as exc:  # noqa: BLE001  # rule 3
        return Status.FAILED, pack_failure(exc, max_task_size)
    return Status.CANCELLED, b""


async def run_call_async(
    order: Order,
    worker_id: int,
    link: TaskLink,
    max_task_size: int,
    scope: trio.CancelScope,
    limiter: trio.CapacityLimiter,
) -> tuple[int, bytes]:
    """Run one order of `Kind.CALL` in a thread, which runs on when ``scope`` is cancelled."""

    def run_call() -> tuple[int, bytes]:
        answer = run_order(_no_task, order, worker_id, link, max_task_size)
        if is_forked():
            leave(0)
        return answer

    try:
        with scope:
            return await trio.to_thread.run_sync(run_call, limiter=limiter)
    except BaseException as exc:  # noqa: BLE001  # rule 3: no thread can be had, for example
        return Status.FAILED, pack_failure(exc, max_task_size)
    return Status.CANCELLED, b""


def _no_task(_task: Task) -> object:
    raise AssertionError("calls only")


class _Loop:
    def __init__(
        self, link: Link, worker_id: int, on_task: OnTaskAsync, task_concurrency: int
    ) -> None:
        self._link = link
        self._worker_id = worker_id
        self._on_task = on_task
        self._task_concurrency = task_concurrency
        self._limiter = trio.CapacityLimiter(task_concurrency)
        # Of the tasks that run, by their seqs.
        self._scopes: dict[int, trio.CancelScope] = {}
        # Trio tasks that cannot exit, until this ends.
        self._wrecks: list[trio.lowlevel.Task] = []
        # Set when nobody else reads any more.
        self._may_read = trio.Event()
        self._nursery: trio.Nursery
        # A task begins where another one ends, and must not inherit what that has set.
        self._context = contextvars.copy_context()

    @property
    def has_wrecks(self) -> bool:
        """Whether the end of this is an error that says nothing."""
        return bool(self._wrecks)

    async def run(self) -> None:
        link = self._link
        link.running = self._scopes
        token = trio.lowlevel.current_trio_token()
        link.on_receive = lambda: token.run_sync_soon(self._has_received, idempotent=True)
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._listen)

    async def _listen(self) -> None:
        self._has_received()
        while True:
            await trio.lowlevel.wait_readable(self._link.fileno())
            self._may_read = trio.Event()
            try:
                may_read = self._link.receive_now()
            except Disconnected:  # the server kills what is left of us, and the page has the rest
                leave(1)
            if may_read:
                self._has_received()
            else:
                await self._may_read.wait()

    def _has_received(self) -> None:
        self._may_read.set()
        cancellations = self._link.cancellations
        while cancellations:
            scope = self._scopes.get(cancellations.popleft())
            if scope is not None:
                scope.cancel()
        self._begin()

    def _begin(self) -> None:
        """Begin as many orders as may run at once."""
        orders, scopes = self._link.orders, self._scopes
        while orders and len(scopes) < self._task_concurrency:
            order = orders[0]
            if order[3] == Kind.STOP:
                if not scopes:
                    self._end()
                return
            orders.popleft()
            seq = order[0]
            begun = monotonic()
            if self._link.recorder.begin(seq, begun):
                scopes[seq] = trio.CancelScope()
                self._context.run(self._nursery.start_soon, self._run, order, begun)
            else:
                self._report(seq, Status.SKIPPED, begun, 0.0, b"")

    def _end(self) -> None:
        self._link.on_receive = None
        self._nursery.cancel_scope.cancel()
        for task in self._wrecks:
            trio.lowlevel.reschedule(task)

    async def _run(self, order: Order, begun: float) -> None:
        seq, _, _, kind, _ = order
        link, scope = self._link, self._scopes[seq]
        if kind == Kind.CALL:
            status, body = await run_call_async(
                order, self._worker_id, link, link.max_task_size, scope, self._limiter
            )
        else:
            status, body = await run_order_async(
                self._on_task, order, self._worker_id, link, link.max_task_size, scope
            )
        if is_forked():  # a child that the task forked came back here; the worker goes on
            leave(0)
        del self._scopes[seq]
        link.recorder.end(seq)
        self._report(seq, status, begun, monotonic() - begun, body)
        trio_task = trio.lowlevel.current_task()
        if trio_task.child_nurseries:
            self._wrecks.append(trio_task)
            self._begin()
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
            return
        self._begin()

    def _report(self, seq: int, status: int, begun: float, ran: float, body: bytes) -> None:
        try:
            self._link.report(seq, status, begun, ran, body)
            self._link.flush()
        except Disconnected:
            leave(1)
