"""The file that tells others the server's process id.

It appears whole or not at all, and a server that lives is not pushed out of it.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NoReturn, final

from trioserver._errors import TrioserverError

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("trioserver.server")

_MOST: Final = 64
"""Bytes that are read of a file that should have a number."""
_CLOCKS_DIFFER: Final = 1.0
"""Seconds by which a process may seem to have started after it wrote: processes and files have
clocks of different grain."""


@final
class PidFile:
    """A file with the id of this process; `open_pid_file` makes it.

    Args:
      path: Where; empty for nowhere.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path) if path else ""  # the app may go elsewhere
        self._is_kept = False

    def hand_over(self) -> str:
        """Leave it there at the end, for the program that this process goes on as: its path."""
        self._is_kept = True
        return self._path

    def remove(self) -> None:
        """Remove it, if it still is ours."""
        with suppress(OSError):  # what cannot be read or removed stays, and is stale
            if self._path and _read(self._path) == _line(os.getpid()):
                os.unlink(self._path)

    def _end(self) -> None:
        if not self._is_kept:
            self.remove()


@contextmanager
def open_pid_file(path: str) -> Iterator[PidFile]:
    """Have ``path`` with the id of this process while inside.

    Args:
      path: Where; empty for nowhere.

    Raises:
      TrioserverError: if it cannot be written, is a device, a pipe or a socket, or another server
        that lives has it.
    """
    file = PidFile(path)
    if path:
        _refuse_if_taken(path)
        _write(path)
    owner = os.getpid()
    try:
        yield file
    finally:
        if os.getpid() == owner:  # and not a child that was forked inside
            file._end()  # noqa: SLF001  # one concept


def _refuse_if_taken(path: str) -> None:
    try:
        found = os.stat(path)
        # A pipe would never be read to its end, and a device must not be renamed away: /dev/null.
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise TrioserverError(f"pid_file {path}: is no regular file")
        text = _read(path)
    except FileNotFoundError:
        return
    except OSError as exc:
        _refuse(path, exc)
    if text is None:  # it has gone just now
        return
    digits = text.strip()
    if not digits.isdigit():
        logger.warning("pid_file %s has no process id: it is replaced", path)
        return
    pid = int(digits)
    if pid != os.getpid() and _is_alive(pid) and _started(pid) <= found.st_mtime + _CLOCKS_DIFFER:
        raise TrioserverError(f"pid_file {path}: a server lives already, process {pid}")


def _write(path: str) -> None:
    """Write beside it and rename, so that nobody reads half a number."""
    temporary = f"{path}.{os.getpid()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        try:
            try:
                os.write(fd, _line(os.getpid()))
            finally:
                os.close(fd)
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as exc:
        _refuse(path, exc)


def _read(path: str) -> bytes | None:
    """The beginning of the file; None if it is not there."""
    try:
        with open(path, "rb") as file:
            return file.read(_MOST)
    except FileNotFoundError:
        return None


def _line(pid: int) -> bytes:
    return b"%d\n" % pid


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is somebody else's
        return True
    return pid > 0


def _started(pid: int) -> float:
    """When a process started, as files have their times; long ago if the system does not say."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as process, open("/proc/uptime", "rb") as uptime:
            ticks = int(process.read().rpartition(b")")[2].split()[19])
            age = float(uptime.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0
    return time.time() - age


def _refuse(path: str, exc: OSError) -> NoReturn:
    raise TrioserverError(f"pid_file {path}: {(exc.strerror or str(exc)).lower()}") from exc
