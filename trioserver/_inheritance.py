"""What a process hands over to the program that it executes in its own place.

It travels in a variable of the environment, beside descriptors that stay open. The standard library
only: it is read before anything that takes its time.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
from contextlib import suppress
from typing import Any, Final, NamedTuple

from trioserver._signals import SIGNALS

_VARIABLE: Final = "_TRIOSERVER_INHERITANCE"


def _directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed
        return ""


START_DIRECTORY: Final = _directory()
"""Where the process was started; empty if that was gone."""


class InheritedSocket(NamedTuple):
    """A listening socket."""

    fd: int
    bind: str
    """The address in ``bind`` that it belongs to."""
    address: str
    """Where it listens in fact."""
    file: tuple[int, int] | None
    """Device and inode of its file, if it is a Unix socket that the server has made."""


class Inheritance(NamedTuple):
    """All of it."""

    sockets: list[InheritedSocket]
    pid_file: str
    """Its absolute path; empty for none."""
    settings: dict[str, Any]
    """Those in force: a reload changes code, and no settings."""
    stream_id: int
    """The id of the next connection, since none is used twice in a server's life."""
    task_id: int
    """The id of the next task."""
    signals_fd: int
    """A pipe with the numbers of the signals that came last."""


_is_looked_for: list[bool] = []
_taken: list[Inheritance] = []


def bequeath(inheritance: Inheritance) -> None:
    """Leave it to the program that this process is about to execute."""
    os.environ[_VARIABLE] = json.dumps([os.getpid(), *inheritance])


def disown() -> None:
    """Take it back: nothing was executed."""
    os.environ.pop(_VARIABLE, None)


def receive_inheritance() -> None:
    """Look for what is there for this process, early, and with handlers for `SIGNALS` in place.

    Neither the variable nor the descriptors reach children.
    """
    if _is_looked_for:
        return
    _is_looked_for.append(True)
    text = os.environ.pop(_VARIABLE, None)
    if text is None:
        return
    with suppress(ValueError, TypeError, OSError):  # not ours: somebody plays with variables
        pid, sockets, *more = json.loads(text)
        if pid != os.getpid():  # of a process that has started this one
            return
        inheritance = Inheritance([_socket(*one) for one in sockets], *more)
        for fd in [inheritance.signals_fd, *(one.fd for one in inheritance.sockets)]:
            os.set_inheritable(fd, False)
        _taken.append(inheritance)
        atexit.register(_discard)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        with open(inheritance.signals_fd, "rb") as pipe:
            for signum in pipe.read():
                if signum in SIGNALS:  # others are the app's, and were meant for the old program
                    signal.raise_signal(signum)


def inherited() -> Inheritance | None:
    """What was received and is not in use yet."""
    return _taken[-1] if _taken else None


def take_inheritance() -> Inheritance | None:
    """Take what was received; who takes it sees to the sockets and files."""
    return _taken.pop() if _taken else None


def _discard() -> None:
    """The start ended before anybody took it: leave no files of the old server behind."""
    for inheritance in _taken:
        for one in inheritance.sockets:
            if one.file is not None:
                remove_socket_file(one.bind.removeprefix("unix:"), one.file)
        if inheritance.pid_file:
            with suppress(OSError):
                os.unlink(inheritance.pid_file)


def remove_socket_file(path: str, known: tuple[int, int]) -> None:
    """Remove ``path`` if it still is the file that is ``known`` by device and inode."""
    try:
        there = os.stat(path)
        if (there.st_dev, there.st_ino) == known:
            os.unlink(path)
    except FileNotFoundError:
        return


def _socket(fd: int, bind: str, address: str, file: list[int] | None) -> InheritedSocket:
    return InheritedSocket(fd, bind, address, None if file is None else (file[0], file[1]))
