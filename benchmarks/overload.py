"""Ten times what the workers can take: ``python -m benchmarks.overload [--seconds N]``.

200 clients post without ever waiting for an answer, small payloads and then large ones. A table for
either, and exit code 1 if the server's memory grew by 20 MiB more than what is said below, or if a
task that was accepted did not complete.

The settings bound what waits for a worker and, as much again, what waits for ``on_finish``. Beside
that each connection may hold the frame that it cannot post yet, its pickle, and one more frame that
is coming in.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from benchmarks.served import Served, mib
from trioserver import LengthFraming

if TYPE_CHECKING:
    from trioserver import Completion, Connection, Server, Task

CLIENTS: Final = 200
WORKERS: Final = 2
TASK_SECONDS: Final = 0.005
OVERLOAD: Final = 10.0
"""Times what the workers could take if they did nothing but sleep."""
MAX_GROWTH: Final = 20 * 2**20
_REPORT: Final = "OVERLOAD_REPORT"
_SEND_BUFFER: Final = 16 * 1024
_RESET: Final = struct.pack("ii", 1, 0)


class App:
    """Accepts, counts, and at the end says how many."""

    framing = LengthFraming("N")

    def __init__(self) -> None:
        self._accepted = 0
        self._finished = 0

    async def on_receive(self, stream: Connection, data: bytes) -> None:
        if not hasattr(stream.state, "is_warm"):  # the first one is answered
            stream.state.is_warm = True
            await stream.server.run_task(data)
            await stream.send_frame(b"")
            self._finished += 1
        else:
            await stream.server.task(data)
        self._accepted += 1

    def on_task(self, task: Task) -> None:
        time.sleep(TASK_SECONDS)

    async def on_finish(self, completion: Completion) -> None:
        completion.unwrap()
        self._finished += 1

    async def on_worker_stop(self, server: Server) -> None:
        numbers = attrs.asdict(server.statistics())
        numbers |= {"accepted": self._accepted, "finished": self._finished}
        await trio.Path(os.environ[_REPORT]).write_text(json.dumps(numbers))


@attrs.frozen
class Case:
    """One kind of overload."""

    name: str
    size: int
    """Bytes of a payload."""
    max_queued_tasks: int = 100
    max_queued_bytes: int = 2**30

    @property
    def in_queue(self) -> int:
        """Bytes that may wait for a worker, and for ``on_finish``."""
        return 2 * min(self.max_queued_tasks * self.size, self.max_queued_bytes)

    @property
    def in_hands(self) -> int:
        """Bytes that the connections may hold, as said above."""
        return CLIENTS * 3 * self.size


CASES: Final = (
    Case("small payloads, max_queued_tasks", 1024),
    Case("large payloads, max_queued_bytes", 100 * 1024, 10_000, 8 * 2**20),
)


class Load:
    """The clients, and the server's memory under them.

    Args:
      server: Its process.
      port: Where it listens.
      case: What is posted.
      seconds: For how long.
    """

    def __init__(self, server: Served, port: int, case: Case, seconds: float) -> None:
        self._server = server
        self._port = port
        self._case = case
        self._seconds = seconds
        self._frame = LengthFraming("N").encode(b"x" * case.size)
        self.sent = 0
        self.begin = self.peak = 0

    async def run(self) -> None:
        """Connect all, see how large the server is, and post until the time is over."""
        async with trio.open_nursery() as clients:
            streams = [await trio.open_tcp_stream("127.0.0.1", self._port) for _ in range(CLIENTS)]
            for stream in streams:
                await stream.send_all(self._frame)
            for stream in streams:
                await stream.receive_some()
            # Now it is at rest, and has allocated whatever has to be allocated once.
            self.begin = self.peak = self._server.rss
            for stream in streams:
                clients.start_soon(self._post, stream)
            await self._watch()
            clients.cancel_scope.cancel()

    async def _post(self, stream: trio.SocketStream) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        every = CLIENTS * TASK_SECONDS / WORKERS / OVERLOAD
        next_at = trio.current_time()
        try:
            while True:
                next_at += every
                await trio.sleep_until(next_at)
                await stream.send_all(self._frame)
                self.sent += 1
        finally:
            # What the server has not read by now it is not to read any more.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            stream.socket.close()

    async def _watch(self) -> None:
        began = trio.current_time()
        while (elapsed := trio.current_time() - began) < self._seconds:
            self.peak = max(self.peak, self._server.rss)
            line = f"{elapsed:5.1f} s: {self.sent} sent, RSS {mib(self._server.rss)}"
            print(f"\r{line:60}", end="", file=sys.stderr, flush=True)
            await trio.sleep(0.02)
        print(file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each case [30]")
    seconds = parser.parse_args().seconds
    return max([_measure(case, seconds) for case in CASES])


def _measure(case: Case, seconds: float) -> int:
    """Run one case and print its table; the exit code."""
    with tempfile.TemporaryDirectory(prefix="trioserver-overload-") as directory:
        report = Path(directory) / "report"
        with Served(
            Path(directory),
            "benchmarks.overload:App",
            f"--task-worker-num={WORKERS}",
            f"--max-queued-tasks={case.max_queued_tasks}",
            f"--max-queued-bytes={case.max_queued_bytes}",
            "--max-wait-time=30",
            **{_REPORT: str(report)},
        ) as server:
            load = Load(server, server.wait_ready(), case, seconds)
            trio.run(load.run)
            exit_code = server.stop()
            left = server.processes_left()
        numbers: dict[str, Any] = json.loads(report.read_text())
    return _report(case, seconds, load, numbers, exit_code, left)


def _report(
    case: Case,
    seconds: float,
    load: Load,
    numbers: dict[str, Any],
    exit_code: int,
    left: list[str],
) -> int:
    growth = load.peak - load.begin
    allowed = case.in_queue + case.in_hands + MAX_GROWTH
    lost = numbers["accepted"] - numbers["finished"]
    is_well = (
        growth < allowed
        and numbers["accepted"] == numbers["posted"] == numbers["completed"]
        and lost == exit_code == len(left) == 0
    )
    could_take = WORKERS / TASK_SECONDS
    print(f"\noverload of {seconds:g} s: {case.name}")
    for name, value in (
        ("payload", f"{case.size} bytes"),
        ("the workers could take", f"{could_take:.0f} tasks/s, {could_take * seconds:.0f} in all"),
        ("offered", f"{OVERLOAD * could_take:.0f} tasks/s"),
        ("taken by TCP", load.sent),
        ("accepted", numbers["accepted"]),
        ("completed", numbers["completed"]),
        ("lost", lost),
        ("RSS at rest, at its peak", f"{mib(load.begin)}, {mib(load.peak)}"),
        ("growth", mib(growth)),
        ("may be queued", mib(case.in_queue)),
        ("may be in connections' hands", mib(case.in_hands)),
        ("growth beyond that", f"{mib(max(0, growth - case.in_queue - case.in_hands))}"),
        ("processes left", len(left)),
        ("exit code of the server", exit_code),
        ("verdict", "well" if is_well else "NOT WELL"),
    ):
        print(f"  {name:28} {value}")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
