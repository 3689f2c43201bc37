"""What `Connection.start_soon` has started."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVarTuple

import trio

from trioserver._errors import name_of
from trioserver._guard import contained
from trioserver._net._endings import endings_left_out

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

        async def call() -> None:
            with endings_left_out(connection, name):
                await async_fn(*args)
            if connection.is_broken:
                connection.begin_close("reset by the client")

        async def run() -> None:
            try:
                with scope:
                    error = await contained(logger, name, call)
                    if error is not None:
                        connection.begin_close(f"{name} raised {name_of(error)}")
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
