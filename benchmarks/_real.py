"""A server of ours as it is deployed, with one client that asks it things."""

from __future__ import annotations

import json
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.served import Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO


class Asker:
    """A client of `_asked.Asked`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._answers: IO[bytes] = self._socket.makefile("rb")

    def ask(self, question: str) -> Any:
        """Its answer."""
        self._socket.sendall(question.encode() + b"\r\n")
        return json.loads(self._answers.readline())

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


@contextmanager
def served(app: str, **settings: int | str) -> Iterator[Asker]:
    """``python -m trioserver APP`` while inside."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    with (
        tempfile.TemporaryDirectory() as directory,
        Served(Path(directory), app, *flags) as server,
    ):
        asker = Asker(server.wait_ready())
        try:
            yield asker
        finally:
            asker.close()
