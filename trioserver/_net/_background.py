"""What `Connection.start_soon` has started."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVarTuple

import trio

from trioserver._guard import contained

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trioserver._net._connection import Connection

ArgsT = TypeVarTuple("ArgsT")

logger = logging.getLogger("trioserver.connection")


class Background:
    """The Trio tasks of one connection; they live in a nursery of the server's, and end with it."""

    def __init__(self) -> None:
        self._scopes: set[trio.CancelScope] = set()
        self._changed = trio.Event()

    def start(
        self,
        nursery: trio.Nursery,
        connection: Connection,
        name: str,
        async_fn: Callable[[*ArgsT], Awaitable[object]],
        args: tuple[*ArgsT],
    ) -> None:
        """Run ``async_fn(*args)`` in ``nursery``; if it raises, ``connection`` closes."""
        scope = trio.CancelScope()
        self._scopes.add(scope)

        async def run() -> None:
            try:
                with scope:
                    error = await contained(logger, name, async_fn, *args)
                    if error is not None:
                        connection.begin_close(f"{name} raised {type(error).__name__}")
            finally:
                self._scopes.discard(scope)
                self._changed.set()

        nursery.start_soon(run, name=name)

    async def end(self) -> None:
        """Cancel them all, and wait until they have ended."""
        while self._scopes:
            for scope in self._scopes:
                scope.cancel()
            self._changed = trio.Event()
            await self._changed.wait()
