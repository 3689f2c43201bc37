"""How often the cyclic garbage collector looks through a process that serves.

What a server makes for a request or a task is freed by its last reference; what stays, modules,
connections and queued tasks, is looked through again and again in vain. With a million tasks in the
queue that is a third of what a task costs.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_YOUNG: Final = 10_000
"""Objects that may be made, and not be freed, before the collector looks at the youngest."""


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Leave out what is there by now, which stays, and look at what comes less often.

    An app that has set the thresholds higher, or has disabled the collector, has its way; so has
    one that sets them meanwhile, or that has frozen objects itself.
    """
    before = young, *older = gc.get_threshold()
    was_frozen = gc.get_freeze_count() > 0
    gc.freeze()
    if 0 < young < _YOUNG:
        gc.set_threshold(_YOUNG, *older)
    ours = gc.get_threshold()
    try:
        yield
    finally:
        if gc.get_threshold() == ours:
            gc.set_threshold(*before)
        if not was_frozen:  # what is whose cannot be told apart
            gc.unfreeze()
