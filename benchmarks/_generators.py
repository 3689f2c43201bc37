"""Load generators: programs that say when they are ready, begin when told, and print a result."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import Self

_READY: Final = "ready"
_PATIENCE: Final = 90.0


class Generator:
    """``python -m MODULE ARGUMENTS`` in a process of its own, on the cores of this one."""

    _process: subprocess.Popen[str]
    _complaints: IO[str]

    def __init__(self, module: str, *arguments: object) -> None:
        self._command = [sys.executable, "-m", module, *map(str, arguments)]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._complaints = self._stack.enter_context(tempfile.TemporaryFile("w+"))
        self._process = subprocess.Popen(  # noqa: S603  # a module of ours
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != _READY:
            try:
                self._fail()
            finally:
                self.close()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
        self._stack.close()

    def begin(self) -> None:
        """Tell it to begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def result(self) -> str:
        """What it prints at its end, which may be when its standard input ends.

        Raises:
          RuntimeError: if it fails.
        """
        said, _ = self._process.communicate(timeout=_PATIENCE)
        if self._process.returncode:
            self._fail()
        return said

    def _fail(self) -> None:
        self._process.wait()
        self._complaints.seek(0)
        last = self._complaints.read().strip().rpartition("\n")[2]
        raise RuntimeError(f"{' '.join(self._command[2:])} failed: {last}")


def wait_to_begin() -> None:
    """In the generator: say that it is ready, and wait until it is told to begin."""
    print(_READY, flush=True)
    sys.stdin.readline()
