"""Loading an app in a forked child, so that this process has nothing of it.

A fork is what is quick enough for every start. It must come early, while there is one thread. The
standard library only, for the same reason.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from trioserver._signals import SIGNALS, StoppedAtStart

if TYPE_CHECKING:
    from collections.abc import Callable

_REFUSED: Final = "refused"
_STOPPED: Final = "stopped"


class ChildDiedError(Exception):
    """The child ended without a word.

    Args:
      code: Its exit code; negative for a signal.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def ask_child(make: Callable[[], str | None], meanwhile: Callable[[], object]) -> str | None:
    """Call ``make`` in a child, and ``meanwhile`` here.

    Returns:
      What ``make`` returns: one line; or None, and then it has said why on stderr.

    Raises:
      ChildDiedError: if the child was killed, or exited by itself.
      StoppedAtStart: if a signal ends the start, of this process or of the child.
    """
    reading, writing = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or the child would say it again
    # A signal now would end this process and not the child.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _answer(make, writing, held)
    os.close(writing)
    try:
        with open(reading, encoding="utf-8") as answers:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            meanwhile()
            # Not to its end: what an app's module has forked may keep the pipe open.
            line = answers.readline()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not line.endswith("\n"):
        raise ChildDiedError(code)
    text = line.rstrip("\n")
    if text == _STOPPED:
        raise StoppedAtStart(0)
    return None if text == _REFUSED else text


def _answer(
    make: Callable[[], str | None], writing: int, held: set[int | signal.Signals]
) -> NoReturn:
    """In the child: answer, and end, whatever happens."""
    code = 1
    try:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            text = make() or _REFUSED
        except StoppedAtStart:
            text = _STOPPED
        # A second signal changes nothing any more.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        with open(writing, "w", encoding="utf-8") as answers:
            answers.write(f"{text}\n")
        code = 0
    except BaseException:  # noqa: ASYNC103, BLE001  # the parent says that there was no answer
        code = 1
    finally:
        os._exit(code)
