"""Messages between event workers: real processes, which clients tell what to send."""

from __future__ import annotations

import os
import re
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from serving import ServerProcess, is_running, wait_until

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from typing import TextIO

WORKERS = 3
MIB = 2**20


class Worker:
    """An event worker, over a connection that it serves."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._answers: TextIO = client.makefile("r")
        self.number = int(self.ask("server.worker_id"))
        self.pid = int(self.ask("__import__('os').getpid()"))

    def ask(self, expression: str) -> str:
        """Have it evaluate something."""
        self._client.sendall(expression.encode() + b"\n")
        return self._answers.readline().rstrip("\n")

    def wait_heard(self, expected: str) -> None:
        """Until that is what it has heard."""
        wait_until(lambda: self.ask("heard") == expected, f"{expected} is heard")

    def close(self) -> None:
        self._answers.close()
        self._client.close()


class Server:
    """A server, and a connection to each of its event workers."""

    def __init__(self, process: ServerProcess) -> None:
        self.process = process
        self._open: list[Worker] = []
        self.workers = self.connect()

    def connect(self, *, to_others_than: tuple[int, ...] = ()) -> list[Worker]:
        """A new connection to each event worker, by number; none to those pids."""
        found: dict[int, Worker] = {}

        def is_whole() -> bool:
            worker = Worker(self.process.connect())
            self._open.append(worker)
            if worker.pid not in to_others_than:
                found[worker.number] = worker
            return len(found) == WORKERS

        wait_until(is_whole, "a connection to each event worker")
        return [found[number] for number in range(WORKERS)]

    def close(self) -> None:
        for worker in self._open:
            worker.close()


def start(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    return start_server(
        "tests.message_app:App",
        "--bind=127.0.0.1:0",
        f"--worker-num={WORKERS}",
        "--max-wait-time=600",  # old processes keep their connections for the test
        "--worker-timeout=600",  # those that are stopped stay so
    )


@pytest.fixture
def fresh_server(start_server: Callable[..., ServerProcess]) -> Iterator[Server]:
    """A server for tests after which it is not as it was."""
    server = Server(start(start_server))
    yield server
    server.close()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with `WORKERS` event workers."""
    process = start(partial(ServerProcess, tmp_path_factory.mktemp("server")))
    server = Server(process)
    yield server
    server.close()
    process.close()


@pytest.fixture
def server(shared_server: Server) -> Server:
    """The shared server, whose event workers have heard nothing."""
    for worker in shared_server.workers:
        worker.ask("heard.clear()")
    return shared_server


def test_to_one(server: Server) -> None:
    """The one that is meant hears it, with who has sent it; nobody else does."""
    zero, one, two = server.workers

    assert zero.ask("server.send_message(1, {'a': 1})") == "None"
    one.wait_heard("[(0, {'a': 1})]")
    assert one.ask("server.broadcast('now')") == "None"
    two.wait_heard("[(1, 'now')]")
    zero.wait_heard("[(1, 'now')]")

    assert one.ask("heard") == "[(0, {'a': 1})]"


def test_broadcast(server: Server) -> None:
    """All others hear it; the one that sends it does not."""
    zero, one, two = server.workers

    zero.ask("server.broadcast('first')")
    one.wait_heard("[(0, 'first')]")
    two.wait_heard("[(0, 'first')]")
    one.ask("server.send_message(0, 'second')")  # who would have heard the first one before it
    zero.wait_heard("[(1, 'second')]")


def test_order(server: Server) -> None:
    """What one sends is heard in its order, large and small."""
    zero, one, _ = server.workers

    zero.ask("[server.send_message(1, n if n % 10 else b'x' * n * 10_000) for n in range(100)]")

    expected = [(0, n if n % 10 else n * 10_000) for n in range(100)]
    one.wait_heard(repr(expected))


def test_large(server: Server) -> None:
    """A message of a mebibyte arrives whole."""
    zero, one, _ = server.workers

    zero.ask(f"server.send_message(1, b'x' * {MIB})")

    one.wait_heard(f"[(0, {MIB})]")


def test_unpicklable(server: Server) -> None:
    """It raises where it is sent."""
    (zero, _, _) = server.workers

    answer = zero.ask("server.send_message(1, LOCK)")

    assert answer == (
        "TypeError: the message of type lock cannot be pickled: cannot pickle '_thread.lock' object"
    )
    assert zero.ask("server.broadcast(LOCK)") == answer


@pytest.mark.parametrize("number", [0, WORKERS, -1, 2**64])
def test_wrong_number(server: Server, number: int) -> None:
    """One's own number, and one that nobody has, are refused by name."""
    (zero, _, _) = server.workers

    assert (
        zero.ask(f"server.send_message({number}, 'x')")
        == f"ValueError: worker_id must be that of another event worker: {number}"
    )


@pytest.mark.parametrize("number", ["1.0", "True", "'1'", "None"])
def test_no_number(server: Server, number: str) -> None:
    """What is no whole number is refused, and None is not everybody."""
    (zero, _, _) = server.workers

    assert (
        zero.ask(f"server.send_message({number}, 'x')")
        == f"TypeError: worker_id must be a whole number: {number}"
    )


def test_too_large(server: Server) -> None:
    """What is larger than a task may be is refused."""
    (zero, _, _) = server.workers

    answer = zero.ask("server.broadcast(b'x' * server.settings.max_task_size)")

    assert re.fullmatch(
        r"ValueError: the message is \d+ bytes pickled, more than max_task_size \d+", answer
    )


def test_nobody_hears(start_server: Callable[..., ServerProcess]) -> None:
    """Without ``on_message`` a message is refused where it is sent."""
    process = start_server("tests.message_app:Deaf", "--bind=127.0.0.1:0", "--worker-num=2")

    for call in ("send_message(1 - server.worker_id, 1)", "broadcast(1)"):
        answer = process.ask(f"server.{call}\n".encode()).decode()
        assert re.fullmatch(
            r"RuntimeError: \S+ has no on_message: nobody would hear a message\n", answer
        )


@pytest.mark.parametrize(
    ("message", "logged"),
    [("'raise'", "ValueError: not that message"), ("Bad()", "SystemExit: bad message")],
)
def test_costs_nothing_else(server: Server, message: str, logged: str) -> None:
    """A message at which ``on_message`` or unpickling raises is logged; the next one is heard."""
    zero, one, _ = server.workers

    zero.ask(f"server.send_message(1, {message})")
    zero.ask("server.send_message(1, 'next')")
    one.wait_heard("[(0, 'next')]")

    assert server.process.log.count(f"\n{logged}\n") == 1
    assert is_running(one.pid)


def test_to_the_dead(fresh_server: Server) -> None:
    """What is sent to one that is dead is lost, silently; its successor hears what comes later."""
    server = fresh_server
    zero, one, two = server.workers

    os.kill(one.pid, signal.SIGSTOP)  # so that it cannot have heard the first
    zero.ask("server.send_message(1, 'first')")
    os.kill(one.pid, signal.SIGKILL)
    for number in range(100):
        zero.ask(f"server.send_message(1, {number})")
    zero.ask("server.broadcast('second')")
    two.wait_heard("[(0, 'second')]")
    _, successor, _ = server.connect(to_others_than=(one.pid,))
    zero.ask("server.send_message(1, 'third')")

    wait_until(lambda: "(0, 'third')" in successor.ask("heard"), "the successor hears")
    assert "first" not in successor.ask("heard")
    assert " lost" not in server.process.log


def test_reload(fresh_server: Server) -> None:
    """Old event workers, whose connections go on, talk with new ones, and with their successors."""
    server = fresh_server
    old = server.workers
    server.process.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: "INFO trioserver.manager: reloaded" in server.process.log, "reloaded")
    fresh = server.connect(to_others_than=tuple(worker.pid for worker in old))

    old[0].ask("server.broadcast('old')")
    for worker in (*old[1:], *fresh):
        worker.wait_heard("[(0, 'old')]")
    fresh[0].ask("server.send_message(1, 'fresh')")
    fresh[1].wait_heard("[(0, 'old'), (0, 'fresh')]")
    fresh[0].ask("server.broadcast('all')")

    old[0].wait_heard("[(0, 'all')]")
    old[1].wait_heard("[(0, 'old'), (0, 'all')]")


def test_a_flood_to_one_that_does_not_read(fresh_server: Server) -> None:
    """Is lost beyond a bound, which the log says once; the manager does not grow beyond it."""
    server = fresh_server
    zero, one, two = server.workers
    before = rss_of(server.process.process.pid)
    os.kill(one.pid, signal.SIGSTOP)

    wait_until(
        lambda: (
            zero.ask(f"flood(server, 1, {MIB}, 20)")
            and f"event worker 1 (pid {one.pid}) does not read" in server.process.log
        ),
        "messages are lost",
    )
    for _ in range(5):
        zero.ask(f"flood(server, 1, {MIB}, 20)")
    wait_until(
        lambda: zero.ask("server.broadcast('others go on')") == "None",  # or trio.WouldBlock
        "there is room for one more",
    )
    two.wait_heard("[(0, 'others go on')]")

    assert rss_of(server.process.process.pid) < before + 160 * MIB
    assert server.process.log.count("does not read: messages for it are lost") == 1
    os.kill(one.pid, signal.SIGCONT)
    wait_until(lambda: hears_again(zero, one), "it hears again")


def hears_again(source: Worker, target: Worker) -> bool:
    source.ask("server.send_message(1, 'again')")
    return "(0, 'again')" in target.ask("heard")


def test_a_flood_to_a_slow_one(fresh_server: Server) -> None:
    """What waits for ``on_message`` is bounded in bytes; the log says what was lost, once."""
    server = fresh_server
    zero, one, _ = server.workers
    one.ask("setattr(app, 'may_hear', trio.Event())")
    before = rss_of(one.pid)

    def is_full() -> bool:
        zero.ask(f"flood(server, 1, {MIB}, 20)")
        one.ask("1")  # it goes on reading
        return "messages are being lost: " in server.process.log

    wait_until(is_full, "messages are lost")
    for _ in range(5):
        is_full()
    assert rss_of(one.pid) < before + 160 * MIB
    one.ask("app.may_hear.set()")

    wait_until(lambda: re.search(r"\d+ messages are lost", server.process.log), "it says so")
    assert server.process.log.count("messages are being lost: ") == 1
    wait_until(lambda: hears_again(zero, one), "it hears again")


def rss_of(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_alone(start_server: Callable[..., ServerProcess]) -> None:
    """A single event worker has nobody to send to: a broadcast does nothing, all else is wrong."""
    process = start_server("tests.message_app:App", "--bind=127.0.0.1:0")

    assert process.ask(b"server.broadcast(1)\n") == b"None\n"
    for number in (0, 1):
        assert process.ask(b"server.send_message(%d, 1)\n" % number) == (
            b"ValueError: worker_id must be that of another event worker: %d\n" % number
        )
    assert process.ask(b"heard\n") == b"[]\n"
