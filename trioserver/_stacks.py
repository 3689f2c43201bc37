"""Reading the Python stack of another process, which shows it when it is signalled.

See `_stack_signal` for that process's side. Rules:

1. The signal kills whoever has no handler for it, and what its handler writes goes to whatever is
   open under a number now. So both are looked at before, where the system lets us.
2. Nothing that is in the file is believed, nor waited for without a limit: the process may write to
   it, or close it.
3. A dump has a head and no end. It is known to be whole when there is the head of a second one, for
   `faulthandler` never begins a dump inside another.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from trioserver._shared_memory import create_shared_memory
from trioserver._stack_signal import STACK_SIGNAL

if TYPE_CHECKING:
    from collections.abc import Sequence

ANSWER_TIME: Final = 1.0
"""Seconds in which a process must have shown its stack."""
_SIZE: Final = 1024 * 1024
"""Bytes; a dump has 100 frames at the most, of two names of 500 characters at the most."""
_FIRST_PAUSE: Final = 0.01
_LOOK: Final = 0.001
"""Seconds between two looks: a file tells nobody that it was written to."""
_HEAD: Final = b"Stack (most recent call first):\n"
_NOT_PRINTABLE: Final = re.compile(rb"[^\n -~]+")
_STATES: Final = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting inside the kernel, where no signal reaches it",
    "T": "stopped",
    "t": "stopped by a debugger",
    "Z": "dead",
    "X": "dead",
}
_BIT: Final = 1 << STACK_SIGNAL - 1
_STOPPED: Final = frozenset("TtZX")


class StackFile:
    """Where a process writes its stack.

    Args:
      name: What to call the process when it does not answer.
    """

    def __init__(self, name: str) -> None:
        self.fd = create_shared_memory("trioserver-stack", _SIZE)
        """For the process to pass to `_stack_signal.show_stack_on_signal`."""
        self._name = name
        self._turn = trio.Lock()
        self._is_closed = False

    def close(self) -> None:
        """Give it back; whoever reads gives up."""
        self._is_closed = True
        os.close(self.fd)

    async def read(self, pid: int) -> list[str]:
        """The frames of the process's main thread now, one a line, the most recent one first.

        Args:
          pid: The process; nobody may have waited for it yet, if it has ended.

        Raises:
          RuntimeError: if it does not answer within `ANSWER_TIME`, and why.
        """
        async with self._turn:
            self._refuse_if_it_cannot(pid)
            self._clear()
            pause = _FIRST_PAUSE
            dump = None
            with trio.move_on_after(ANSWER_TIME):
                # As its handler does, too, while it runs. Another thread would answer in its place.
                while _signals_of(pid)[1] & _BIT:  # noqa: ASYNC110  # another process sets no event
                    await trio.sleep(_LOOK)
                while dump is None:
                    self._signal(pid)
                    # Again after a while: a dump may have begun before the file was cleared.
                    with trio.move_on_after(pause):
                        dump = await self._whole_dump(pid)
                    pause *= 2
            if dump is None:
                is_held_back = _signals_of(pid)[1] & _BIT
                reason = f"it holds back signal {STACK_SIGNAL}" if is_held_back else ""
                self._refuse(pid, _state_of(pid), reason)
            return dump

    async def _whole_dump(self, pid: int) -> list[str]:
        """Wait until a dump is there, and then until it is whole."""
        heads = self._content().count(_HEAD)
        while True:
            await trio.sleep(_LOOK)
            if self._is_closed:
                self._refuse(pid, "Z")
            content = self._content()
            _, *dumps = content.split(_HEAD)
            if len(dumps) > 1:
                text = _NOT_PRINTABLE.sub(b"", dumps[0]).decode("ascii")
                return text.splitlines()
            if len(dumps) > heads:
                heads = len(dumps)
                self._signal(pid)

    def _content(self) -> bytes:
        # Closed, it may be another one's number by now; whoever waits for a dump sees that.
        return b"" if self._is_closed else os.pread(self.fd, _SIZE, 0)

    def _clear(self) -> None:
        # The place in the file is the same for both. It is moved first: a late dump that goes on
        # meanwhile must not leave anything behind what comes next.
        os.lseek(self.fd, 0, os.SEEK_SET)
        os.pwrite(self.fd, bytes(len(self._content().rstrip(b"\0"))), 0)

    def _signal(self, pid: int) -> None:
        if not _signals_of(pid)[0] & _BIT:
            state = _state_of(pid)
            is_dead = state in _STOPPED  # which has no handlers either
            reason = "" if is_dead else f"its handler of signal {STACK_SIGNAL} is gone"
            self._refuse(pid, state, reason)
        try:
            os.kill(pid, STACK_SIGNAL)
        except ProcessLookupError:
            self._refuse(pid, "Z")

    def _refuse_if_it_cannot(self, pid: int) -> None:
        if self._is_closed:
            self._refuse(pid, "Z")
        state = _state_of(pid)
        if state in _STOPPED:
            self._refuse(pid, state)
        if not self._is_open_in(pid):
            self._refuse(pid, state, "it has closed the descriptor for that")

    def _is_open_in(self, pid: int) -> bool:
        own = os.fstat(self.fd)
        directory = f"/proc/{pid}/fd"
        try:
            names = os.listdir(directory)
        except OSError:  # no such system, or no such process any more
            return True
        return any(_is_same(f"{directory}/{name}", own) for name in names)

    def _refuse(self, pid: int, state: str, reason: str = "") -> NoReturn:
        if not reason:
            reason = (
                f"it is {_STATES[state]}" if state in _STATES else "the system does not say why"
            )
        raise RuntimeError(f"{self._name} (pid {pid}) does not answer: {reason}")


def without_machinery(frames: Sequence[str], directories: Sequence[str]) -> list[str]:
    """Leave out those frames below the app's whose files are in ``directories``.

    Args:
      frames: The most recent one first, as `StackFile.read` has them.
      directories: Beginnings of file names.

    Returns:
      All of them, if none is the app's.
    """
    marks = tuple(f'  File "{directory}' for directory in directories)
    last = len(frames)
    while last and frames[last - 1].startswith(marks):
        last -= 1
    return list(frames[: last or None])


def _is_same(path: str, known: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), known)
    except OSError:
        return False


def _state_of(pid: int) -> str:
    """The letter of the process's state, empty where the system does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0].decode()
    except FileNotFoundError:
        return "Z" if os.path.exists("/proc/self/stat") else ""
    except (OSError, IndexError):
        return ""


def _signals_of(pid: int) -> tuple[int, int]:
    """The signals, as bits, for which the process has handlers, and which it holds back."""
    caught, blocked = -1, 0
    try:
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                name, _, value = line.partition(":")
                if name == "SigCgt":
                    caught = int(value, 16)
                elif name == "SigBlk":
                    blocked = int(value, 16)
    except (OSError, ValueError):  # no such system, or no such process any more
        return -1, 0
    return caught, blocked
