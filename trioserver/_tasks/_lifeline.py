"""What a task worker does first of all, so that it can neither outlive nor hinder its server.

It runs as the ``init`` of a trio-parallel context, before any code of the user's. Rules:

1. The worker leads a session of its own. A signal to the server's process group does not reach it,
   and one ``killpg`` ends it together with what it started.
2. When the server dies, however it dies, the kernel kills the worker's whole group at once.
3. What a task forks or starts does not hold the descriptors by which a death is noticed.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import threading
from multiprocessing import resource_tracker
from typing import Final

# A handler and not SIG_IGN, because a program that a task starts would inherit SIG_IGN, and then
# could not be terminated; handlers end at exec.
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_own_fds: set[int] = set()


def prepare_process() -> None:
    """Make this process a task worker: see the rules of the module."""
    os.setsid()
    for signum in _IGNORED:
        signal.signal(signum, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see `_booting`
    for name in os.listdir("/dev/fd"):
        keep_from_children(int(name))
    os.register_at_fork(after_in_child=_leave_group_business)
    _die_with_parent()


def keep_from_children(fd: int) -> None:
    """Keep ``fd`` out of the processes that tasks start or fork."""
    # multiprocessing shares its tracker on purpose; listing /dev/fd names a descriptor that is gone
    # by now.
    tracker_fd = getattr(resource_tracker, "_resource_tracker")._fd  # noqa: B009, SLF001
    if fd <= 2 or fd == tracker_fd:  # noqa: PLR2004  # stdin, stdout, stderr
        return
    try:
        os.set_inheritable(fd, False)
    except OSError:
        return
    _own_fds.add(fd)


def is_forked() -> bool:
    """Whether this is a child that a task has forked, and not the worker."""
    return not _own_fds


def _leave_group_business() -> None:
    """In a forked child: let go of the worker's descriptors, but leave their numbers taken.

    trio-parallel waits, shielded, for the end of a pipe that a forked child would hold open. Closed
    numbers would be used again, and then be closed by the objects that still remember them.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for fd in _own_fds:
        os.dup2(null, fd, inheritable=False)
    os.close(null)
    _own_fds.clear()
    for signum in _IGNORED:
        signal.signal(signum, signal.SIG_DFL)


def _ignore(_signum: int, _frame: object) -> None:
    """Stopping a worker is the server's business, and it says so on the socket or with SIGKILL."""


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("a task worker must be started by its server")
    die_with(parent.sentinel)


def die_with(sentinel: int) -> None:
    """Have the kernel kill the group that this process leads when the other end is closed.

    Args:
      sentinel: The reading end of a pipe into which nobody writes.
    """
    try:
        import fcntl  # noqa: PLC0415  # not on every system

        set_signal = fcntl.F_SETSIG  # type: ignore[attr-defined,unused-ignore]  # Linux
    except (ImportError, AttributeError):
        threading.Thread(target=_watch_parent, args=(sentinel,), daemon=True).start()
        return
    # The kernel signals the group when the parent's end of this pipe closes. PR_SET_PDEATHSIG would
    # kill healthy workers, since it watches the parent's *thread*, and a watching thread of ours
    # cannot run while a C call holds the GIL.
    fcntl.fcntl(sentinel, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(sentinel, set_signal, signal.SIGKILL)
    fcntl.fcntl(sentinel, fcntl.F_SETFL, fcntl.fcntl(sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([sentinel], [], [], 0)[0]:  # it died before we were ready to hear of it
        _kill_group()


def _watch_parent(sentinel: int) -> None:
    select.select([sentinel], [], [])
    _kill_group()


def _kill_group() -> None:
    os.killpg(0, signal.SIGKILL)
