"""What several test modules share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pool_bench
import pytest
import workers
from pages import page, page_fd, recorder
from seeds import Seeds, add_options, batches
from serving import ServerProcess
from through_manager import ALONE, THROUGH_MANAGER, open_pool_through_manager
from workers import Gate

from trioserver import _embedding, _serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Fixtures that are kept beside what else they need.
__all__ = ["page", "page_fd", "recorder"]


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each simulation its seeds."""
    if "seeds" in metafunc.fixturenames:
        test = metafunc.definition.nodeid
        metafunc.parametrize(
            "seeds",
            [Seeds(batch, test) for batch in batches(metafunc.config)],
            ids=[f"{batch.start}-{batch.stop - 1}" for batch in batches(metafunc.config)],
        )


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


@pytest.fixture(params=[ALONE, THROUGH_MANAGER])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have pools both ways: their dispatcher in their own process, and that of a manager."""
    if request.param == THROUGH_MANAGER:
        for module in (_embedding, _serving, workers, pool_bench):
            monkeypatch.setattr(module, "open_pool", open_pool_through_manager)
    return str(request.param)
