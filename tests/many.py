"""A server of several processes, driven from outside: an app that does what lines say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving import PATIENCE, ROOT, ServerProcess, children_of, is_running, wait_until

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

APP = """
import os, signal, sys, time
from pathlib import Path
import trio
from trioserver import EofFraming

MARKER = "one"
framing = EofFraming(b"\\n")
with open("imports", "a") as file:
    print(os.getpid(), file=file)

async def on_worker_start(server):
    global the_server
    the_server = server
    if Path("no start").exists():
        raise RuntimeError("no start today")
    if Path("die at start").exists():
        os._exit(7)

async def on_worker_stop(server):
    print("stopped", server.worker_id, os.getpid())

async def on_receive(stream, data):
    verb, _, argument = data.decode().partition(" ")
    server = stream.server
    if verb == "who":
        answer = f"{server.worker_id} {os.getpid()} {MARKER}"
    elif verb == "post":
        answer = await server.task(argument)
    elif verb == "own":
        answer = await stream.task(argument)
    elif verb == "run":
        answer = await server.run_task(argument)
    elif verb == "cancel":
        answer = server.cancel(int(argument))
    elif verb == "statistics":
        statistics = server.statistics()
        assert statistics.is_balanced
        answer = {name: getattr(statistics, name) for name in (
            "posted", "queued", "running", "completed", "cancelled", "abandoned", "connections")}
        answer["workers"] = [(w.id, w.pid, w.state) for w in statistics.event_workers]
        answer["task_workers"] = [(w.id, w.pid, w.state) for w in statistics.workers]
        answer = __import__("json").dumps(answer)
    elif verb == "sleep":
        await trio.sleep(float(argument))
        answer = "slept"
    elif verb == "wait":  # until a file is there
        Path(argument + ".begun").touch()
        while not Path(argument).exists():
            await trio.sleep(0.01)
        answer = f"waited {MARKER}"
    elif verb == "block":
        block_the_loop(argument)
        answer = "blocked"
    elif verb == "garble":
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    os.write(int(name), os.urandom(1000))
            except OSError:
                pass
        answer = "garbled"
    elif verb == "reload":
        server.reload(only_task_workers=bool(argument))
        answer = "asked"
    elif verb == "shutdown":
        server.shutdown()
        answer = "asked"
    elif verb == "exit":
        os._exit(int(argument))
    await stream.send_frame(str(answer).encode())

def block_the_loop(name):
    Path(name + ".begun").touch()
    while not Path(name).exists():
        time.sleep(0.01)

def on_task(task):
    verb, _, argument = task.data.partition(" ")
    with open("runs", "a") as file:
        print(task.id, task.attempt, MARKER, file=file)
    if verb == "wait":
        Path(argument + ".begun").touch()
        while not Path(argument).exists():
            time.sleep(0.01)
    elif verb == "hang":
        Path(argument + ".begun").touch()
        time.sleep(600)
    elif verb == "pid":
        return f"{task.worker_id} {os.getpid()} {MARKER}"
    elif verb == "child":
        return task.post(argument)
    return f"{argument or verb} {MARKER}"

async def on_finish(completion):
    what = type(completion.error).__name__ if completion.error else completion.result
    print("finished", completion.task_id, what)
    if completion.stream is not None and completion.error is None:
        await completion.stream.send_frame(f"finished {completion.result}".encode())

async def on_close(stream):
    print("closed", stream.id, stream.close_reason)
"""


class Client:
    """A connection that sends and receives lines."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._received = b""
        self.worker_id, self.pid, self.marker = self._who()

    def _who(self) -> tuple[int, int, str]:
        worker_id, pid, marker = self.ask("who").split()
        return int(worker_id), int(pid), marker

    def ask(self, line: str) -> str:
        """Send a line; the next line that comes."""
        self.send(line)
        return self.receive()

    def send(self, line: str) -> None:
        self.sock.sendall(line.encode() + b"\n")

    def receive(self) -> str:
        """The next line; ``EOFError`` at the end."""
        while b"\n" not in self._received:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    def statistics(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("statistics"))
        return found

    def close(self) -> None:
        self.sock.close()


class ManyProcesses(ServerProcess):
    """``python -m trioserver app`` with several event workers; its app is in a file of its own."""

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        workers: int = 2,
        task_workers: int = 2,
        text: str = APP,
        **options: Any,
    ) -> None:
        self.directory = directory
        (directory / "app.py").write_text(text)
        self._clients: list[Client] = []
        super().__init__(
            directory,
            "app",
            "--bind=127.0.0.1:0",
            f"--worker-num={workers}",
            f"--task-worker-num={task_workers}",
            *arguments,
            **options,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def event_workers(self) -> list[int]:
        """Pids of event workers, old ones too."""
        return [pid for pid in self.children if "event worker" in command_of(pid)]

    @property
    def task_workers(self) -> list[int]:
        return [pid for pid in self.children if "task worker" in command_of(pid)]

    @property
    def tree(self) -> list[int]:
        """All its processes and their children."""
        return [self.pid, *self.children, *(g for c in self.children for g in children_of(c))]

    def client(self) -> Client:
        """A connection to whichever event worker takes it."""
        client = Client(self.connect())
        self._clients.append(client)
        return client

    def client_of(self, worker_id: int) -> Client:
        """A connection to an event worker of that number."""
        found: dict[int, Client] = {}

        def is_found() -> bool:
            client = self.client()
            found[client.worker_id] = client
            if client.worker_id != worker_id:
                client.close()
            return worker_id in found

        wait_until(is_found, f"a connection to event worker {worker_id}")
        return found[worker_id]

    def clients_of_all(self) -> dict[int, Client]:
        """A connection to each event worker, by its number."""
        found: dict[int, Client] = {}
        wait_until(lambda: self._find(found), "a connection to each event worker")
        return found

    def _find(self, found: dict[int, Client]) -> bool:
        client = self.client()
        found[client.worker_id] = client
        return len(found) == self.number

    @property
    def number(self) -> int:
        """How many event workers there are, an old one and its successor being one."""
        return len({command_of(pid) for pid in self.event_workers})

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def touch(self, name: str) -> None:
        (self.directory / name).touch()

    def remove(self, name: str) -> None:
        (self.directory / name).unlink()

    def wait_file(self, name: str) -> None:
        wait_until((self.directory / name).exists, f"file {name}")

    def wait_log(self, text: str, count: int = 1) -> None:
        wait_until(lambda: self.log.count(text) >= count, f"{text!r} in\n{self.log}")

    def lines(self, name: str) -> list[str]:
        """Of a file that the app writes."""
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []

    def rewrite(self, old: str, new: str) -> None:
        """Change the app's source; what is compiled of the old one must not look as fresh."""
        path = self.directory / "app.py"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        later = path.stat().st_mtime + 2
        os.utime(path, (later, later))

    def reload(self, signum: int, count: int = 1) -> None:
        """Signal it, and wait until that many reloads are over, since the start."""
        self.signal(signum)
        self.wait_log("INFO trioserver.manager: reloaded", count)

    def control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``python -m trioserver.ctl``."""
        return subprocess.run(
            [sys.executable, "-m", "trioserver.ctl", str(self.directory / "ctl" / "s"), *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, "PYTHONPATH": ROOT},
            check=False,
        )

    def close(self) -> None:
        for client in self._clients:
            client.close()
        tree = self.tree if self.process.poll() is None else []
        super().close()
        wait_until(lambda: not any(map(is_running, tree)), "nothing of it is left")


def command_of(pid: int) -> str:
    """Its title, empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextmanager
def many_processes(directory: Path, *arguments: str, **options: Any) -> Iterator[ManyProcesses]:
    """A running server; at the end nothing of it is left."""
    server = ManyProcesses(directory, *arguments, **options)
    try:
        yield server
    finally:
        server.close()
