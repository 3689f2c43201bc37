"""Runs orders one after the other: the loop of a worker whose ``on_task`` is a plain function.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from trioserver._tasks._arena import LARGE
from trioserver._tasks._leaving import leave
from trioserver._tasks._lifeline import is_forked
from trioserver._tasks._running_orders import run_order
from trioserver._tasks._wire import REPORT, Kind, Status

if TYPE_CHECKING:
    from trioserver._tasks._link import Link
    from trioserver._tasks._running_orders import OnTask

# A result that took this long to make goes out at once: one more system call is nothing to it.
SEND_AT_ONCE_AFTER: Final = 0.001
_STOP: Final = int(Kind.STOP)


def run_one_by_one(link: Link, worker_id: int, on_task: OnTask) -> None:
    """Run what comes until an order says stop; reports go out many at a time where they are short.

    Raises:
      Disconnected: if the dispatcher cannot be reached.
    """
    orders, max_task_size = link.orders, link.max_task_size
    begin, end, publish = link.recorder.begin, link.recorder.end, link.recorder.publish
    pack = REPORT.pack
    running = [0]  # one item, which is no seq while no task runs
    link.running = running
    while True:
        if not orders:
            link.flush()
            link.receive()
            continue
        order = orders.popleft()
        seq, kind = order[0], order[3]
        if kind >= _STOP:
            if kind == _STOP:
                link.flush()
                return
            continue  # the cancellation of a task that has ended
        begun = monotonic()
        if not begin(seq, begun):
            link.report(seq, Status.SKIPPED, begun, 0.0, b"")
            continue
        running[0] = seq
        status, body = run_order(on_task, order, worker_id, link, max_task_size)
        running[0] = 0
        if is_forked():  # a child that the task forked came back here; the worker goes on
            leave(0)
        end(seq)
        ran = monotonic() - begun
        if len(body) >= LARGE:
            link.report(seq, status, begun, ran, body)
        else:
            record = pack(seq, status, begun, ran, len(body)) + body
            if not publish(record):  # what `Link.report` does, without the call
                link.report_what_has_no_room(record)
        if ran >= SEND_AT_ONCE_AFTER:
            link.flush()
