"""A worker's flight recorder as the dispatcher's side has it, which a task may have spoilt.

A page that makes no sense answers nothing, and is complained about once.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from trioserver._tasks._arena import Arena
from trioserver._tasks._recorder import Page, PageError, create_page
from trioserver._tasks._wire import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from trioserver._tasks._wire import Report

logger = logging.getLogger("trioserver.tasks")


class WorkerPage:
    """The page of one worker process.

    Args:
      worker_id: Whose it is, for the log.
    """

    def __init__(self, worker_id: int) -> None:
        self.fd = create_page()
        """What the worker is to map."""
        self._worker_id = worker_id
        try:
            self._page = Page(self.fd)
            self.arena = Arena(self.fd)
            """Where large bodies are."""
        except BaseException:
            os.close(self.fd)
            raise
        self._is_spoilt = False
        self.revoke = self._page.revoke

    def begun(self) -> tuple[int, float] | None:
        """See `Page.begun`; None if it is spoilt."""
        try:
            return self._page.begun()
        except PageError:
            return None

    def begun_at(self, seq: int) -> float | None:
        """See `Page.begun_at`; None if it is spoilt."""
        try:
            return self._page.begun_at(seq)
        except PageError:
            return None

    def published(self, check: Callable[[Report], None]) -> list[Report]:
        """See `Page.published`; nothing if it is spoilt.

        Args:
          check: Raises `WireError` for a report that cannot be.
        """
        try:
            reports = self._page.published(self._fetch)
            for report in reports:
                check(report)
        except (PageError, WireError):
            self._complain()
            return []
        return reports

    def progressed(self, seqs: Iterable[int]) -> list[tuple[int, bytes]]:
        """See `Page.progressed`; nothing if it is spoilt."""
        try:
            return self._page.progressed(seqs)
        except PageError:
            self._complain()
            return []

    def close(self) -> None:
        """Give back the memory and its descriptor."""
        os.close(self.fd)
        self._page.close()
        self.arena.close()

    def _fetch(self, fields: tuple[Any, ...]) -> bytes:
        return self.arena.report_at(fields[-1])

    def _complain(self) -> None:
        if not self._is_spoilt:
            self._is_spoilt = True
            logger.warning("task worker %d has overwritten its flight recorder", self._worker_id)
