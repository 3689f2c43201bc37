"""An outbox over a kernel whose room a test decides."""

from __future__ import annotations

import trio
import trio.testing
from net import PATIENCE

from trioserver._net._outbox import Outbox


class Kernel:
    """A transport that takes ``room`` bytes at once, and more when `make_room` is called."""

    peername = ""

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.writes: list[bytes] = []
        self.is_broken = False
        self._changed = trio.Event()

    @property
    def written(self) -> bytes:
        return b"".join(self.writes)

    def make_room(self, size: int) -> None:
        self.room += size
        self._changed.set()

    def break_off(self) -> None:
        self.is_broken = True
        self._changed.set()

    def try_send(self, data: bytes | memoryview) -> int:
        if self.is_broken:
            raise trio.BrokenResourceError("the connection was reset")
        sent = min(self.room, len(data))
        if sent:
            self.room -= sent
            self.writes.append(bytes(data[:sent]))
        return sent

    async def wait_writable(self) -> None:
        while not self.room and not self.is_broken:
            self._changed = trio.Event()
            await self._changed.wait()

    async def send_all(self, data: memoryview) -> None:
        while data:
            await self.wait_writable()
            data = data[self.try_send(data) :]

    # What an outbox never calls.

    async def receive_some(self, max_bytes: int) -> bytes:
        raise NotImplementedError

    def receive_nowait(self, max_bytes: int) -> bytes | None:
        raise NotImplementedError

    def stop_reading(self) -> None:
        raise NotImplementedError

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


class Fixture:
    """An outbox over a kernel; ``broken`` counts how often it said that the peer is gone."""

    def __init__(self, nursery: trio.Nursery, room: int) -> None:
        self.kernel = Kernel(room)
        self.broken = 0
        self.outbox = Outbox(self.kernel, nursery, self._on_broken)

    async def send_all(self, data: bytes) -> None:
        """As `Connection.send_all` does it."""
        piece = self.outbox.put(data)
        if piece is not None:
            await self.outbox.wait_written(piece)

    def _on_broken(self) -> None:
        self.broken += 1


async def settle() -> None:
    """Until every task waits."""
    with trio.fail_after(PATIENCE):
        await trio.testing.wait_all_tasks_blocked()


async def cancel_when_settled(scope: trio.CancelScope) -> None:
    await settle()
    scope.cancel()
