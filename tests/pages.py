"""A page of shared memory under test, and who else touches it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from serving import ROOT

from trioserver._tasks._recorder import Page, Recorder, create_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def page_fd() -> Iterator[int]:
    """A fresh page of shared memory."""
    fd = create_page()
    yield fd
    os.close(fd)


@pytest.fixture
def recorder(page_fd: int) -> Iterator[Recorder]:
    """The worker's hand."""
    recorder = Recorder(page_fd)
    yield recorder
    recorder.close()


@pytest.fixture
def page(page_fd: int) -> Iterator[Page]:
    """The dispatcher's hand."""
    page = Page(page_fd)
    yield page
    page.close()


def in_a_process(page_fd: int, code: str) -> subprocess.Popen[bytes]:
    """Run ``code`` in a process that has the page's ``recorder``."""
    start = f"from trioserver._tasks._recorder import Recorder; recorder = Recorder({page_fd})\n"
    return subprocess.Popen(
        [sys.executable, "-c", start + textwrap.dedent(code)],
        cwd=ROOT,
        pass_fds=[page_fd],
        stdout=subprocess.PIPE,
    )


class Between:
    """Words of a page; after the ``at``-th access to them something happens elsewhere."""

    def __init__(self, words: memoryview, at: int, happening: Callable[[], object]) -> None:
        self.words = words
        self.accesses = 0
        self.at = at
        self.happening = happening

    def __getitem__(self, index: int) -> int:
        value: int = self.words[index]
        self._accessed()
        return value

    def __setitem__(self, index: int, value: int) -> None:
        self.words[index] = value
        self._accessed()

    def _accessed(self) -> None:
        self.accesses += 1
        if self.accesses == self.at:
            self.happening()
