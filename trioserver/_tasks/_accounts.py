"""What each connection has posted and not heard of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trioserver._tasks._admission import CLOSED

if TYPE_CHECKING:
    from trioserver._tasks._job import Job, Owner


class _Account:
    """One connection's."""

    __slots__ = ("delivering", "jobs", "posting", "waiting")

    def __init__(self) -> None:
        # In the order of their posting (a set that has one).
        self.jobs: dict[Job, None] = {}
        # Posts that were let through and are not jobs yet, and ends that are not delivered yet.
        self.posting = 0
        self.delivering = 0
        # Posts that are not let through yet.
        self.waiting = trio.lowlevel.ParkingLot()

    @property
    def is_empty(self) -> bool:
        return not (self.jobs or self.posting or self.delivering or self.waiting)


class Accounts:
    """The accounts of all connections that have one; none is kept that is empty.

    A connection at its limit waits by itself, and does not stand in the line of all.

    Args:
      limit: Tasks that one connection may have posted and not heard of; 0 for any number.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._accounts: dict[Owner, _Account] = {}
        self._is_closed = False

    def close(self) -> None:
        """Let no post through from now on; those who wait are refused."""
        self._is_closed = True
        for account in self._accounts.values():
            account.waiting.unpark_all()

    def __contains__(self, stream: Owner) -> bool:
        """Whether ``stream`` has an account, and so something in it."""
        return stream in self._accounts

    def jobs_of(self, stream: Owner) -> list[Job]:
        """The jobs of ``stream`` that have not ended, the oldest first."""
        account = self._accounts.get(stream)
        return [] if account is None else list(account.jobs)

    def enter_nowait(self, stream: Owner, *, in_on_finish: bool) -> None:
        """Let a post of ``stream`` through; `posted` or `given_up` must follow.

        Args:
          stream: Who posts.
          in_on_finish: Whether an ``on_finish`` posts: it would wait for itself if ends that are
            not delivered counted.

        Raises:
          trio.WouldBlock: if it has posted too much.
          trio.ClosedResourceError: after `close`.
        """
        if self._is_closed:
            raise trio.ClosedResourceError(CLOSED)
        account = self._accounts.setdefault(stream, _Account())
        if self._limit:
            count = len(account.jobs) + account.posting
            if count + (0 if in_on_finish else account.delivering) >= self._limit:
                raise trio.WouldBlock
        account.posting += 1

    async def enter(self, stream: Owner, *, in_on_finish: bool) -> None:
        """Let a post of ``stream`` through when it may post; `posted` or `given_up` must follow.

        Raises:
          trio.ClosedResourceError: if `close` comes first.
        """
        while True:
            try:
                self.enter_nowait(stream, in_on_finish=in_on_finish)
            except trio.WouldBlock:
                await self._accounts[stream].waiting.park()
            else:
                return

    def posted(self, stream: Owner, job: Job) -> None:
        """A post that was let through has become ``job``."""
        account = self._accounts[stream]
        account.posting -= 1
        account.jobs[job] = None

    def given_up(self, stream: Owner) -> None:
        """A post that was let through comes to nothing."""
        account = self._accounts[stream]
        account.posting -= 1
        self._settle(stream, account)

    def ended(self, stream: Owner, job: Job) -> None:
        """``job`` has ended; `delivered` follows."""
        account = self._accounts[stream]
        del account.jobs[job]
        account.delivering += 1
        account.waiting.unpark_all()  # an `on_finish` among them may go on now

    def delivered(self, stream: Owner) -> None:
        """The end of a job of ``stream`` was heard."""
        account = self._accounts[stream]
        account.delivering -= 1
        self._settle(stream, account)

    def _settle(self, stream: Owner, account: _Account) -> None:
        account.waiting.unpark_all()
        if account.is_empty:
            del self._accounts[stream]
