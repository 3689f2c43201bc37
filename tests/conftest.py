"""What several test modules share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from serving import ServerProcess
from workers import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Start ``python -m trioserver`` with the given arguments, in a directory of the test's own."""
    servers: list[ServerProcess] = []

    def start(*arguments: str, **options: object) -> ServerProcess:
        server = ServerProcess(tmp_path, *arguments, **options)  # type: ignore[arg-type]
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Where tasks of a test wait."""
    gate = Gate(tmp_path)
    yield gate
    gate.close()
