"""What a Celery worker runs, with settings that let it be as fast as it can."""

from __future__ import annotations

import os
from typing import Final

import celery

from benchmarks import _work

BROKER: Final = "BENCHMARK_BROKER"
"""The variable with the address of Redis."""

app = celery.Celery("benchmarks", broker=os.environ[BROKER], backend=os.environ[BROKER])
app.conf.update(
    broker_connection_retry_on_startup=True,
    # A thousand are in flight: let each worker process have many of them at hand.
    worker_prefetch_multiplier=128,
    worker_send_task_events=False,
    task_send_sent_event=False,
    result_expires=60,
)
same = app.task(_work.same)
nap = app.task(_work.nap)
