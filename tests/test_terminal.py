"""Ctrl-C in a real terminal, where it reaches every process of the foreground group."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from serving import PATIENCE, ROOT, children_of, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    StartTerminal = Callable[..., "Terminal"]

APP = """\
import time

async def on_receive(stream, data): ...

async def on_worker_start(server):
    server.start_soon(post, server)

async def post(server):
    for _ in range(3):
        await server.task(None)
    print("posted")

def on_task(task):
    print("runs", flush=True)
    time.sleep(SECONDS)

async def on_finish(completion):
    with open("finishes", "a") as file:  # whole lines, which a terminal may mix
        print(completion.task_id, completion.error, file=file)
"""
# Makes the given module slow to import, and says when its import has begun.
SLOW_IMPORT = """\
import sys, time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "MODULE":
            print("begun", flush=True)
            # A signal that comes in the moment before a sleep is seen after it: many short ones.
            for _ in range(6000):
                time.sleep(0.01)

sys.meta_path.insert(0, Slow())
"""
CONTROL_C = b"\x03"


class Terminal:
    """``python ARGUMENTS`` as the foreground of a terminal of its own, in ``directory``."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._ours, theirs = os.openpty()
        self._shown = bytearray()
        self.process = subprocess.Popen(
            # A session that has no terminal yet gets the first one that it opens.
            [sys.executable, "-c", AS_FOREGROUND, os.ttyname(theirs), sys.executable, *arguments],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": f"{directory}{os.pathsep}{ROOT}"},
            start_new_session=True,
        )
        # Ours stays open until something else holds it, or the reader would see an end too early.
        wait_until(self._is_opened, "the terminal is open")
        self._theirs = theirs
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _is_opened(self) -> bool:
        out = os.path.realpath(f"/proc/{self.process.pid}/fd/1")
        return out.startswith("/dev/pts/") or self.process.poll() is not None

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # what a terminal says when nobody holds its other end
                return
            self._shown += data

    @property
    def shown(self) -> str:
        return self._shown.decode().replace("\r\n", "\n")

    def wait_shown(self, text: str) -> None:
        self.wait_shown_times(1, text)

    def wait_shown_times(self, times: int, text: str) -> None:
        try:
            wait_until(lambda: self.shown.count(text) >= times, f"{text!r} in the terminal")
        except AssertionError as exc:
            exc.add_note(self.shown)
            raise

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        os.close(self._theirs)
        self._reader.join(PATIENCE)
        assert not self._reader.is_alive(), "somebody still holds the terminal"
        os.close(self._ours)


AS_FOREGROUND = """\
import os, sys
terminal = os.open(sys.argv[1], os.O_RDWR)
for fd in range(3):
    os.dup2(terminal, fd)
os.close(terminal)
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def start_terminal(tmp_path: Path) -> Iterator[StartTerminal]:
    """Start ``python ARGUMENTS`` in a terminal, in a directory of the test's own."""
    terminals: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        terminals.append(Terminal(tmp_path, *arguments))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


def serve(start_terminal: StartTerminal, directory: Path, *more: str, seconds: float) -> Terminal:
    """Serve the app, whose tasks sleep so long, on two task workers."""
    (directory / "app.py").write_text(APP.replace("SECONDS", str(seconds)))
    return start_terminal(
        "-m", "trioserver", "app", "--bind=127.0.0.1:0", "--task-worker-num=2", *more
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_it_stops_the_server(start_terminal: StartTerminal, tmp_path: Path, workers: int) -> None:
    """Running and queued tasks end as after any other signal, and the exit code is 0."""
    more = "--max-wait-time=60", f"--worker-num={workers}"
    terminal = serve(start_terminal, tmp_path, *more, seconds=0.2)
    terminal.wait_shown(": ready in ")
    terminal.wait_shown_times(workers, "posted")
    terminal.press(CONTROL_C)

    assert terminal.wait() == 0
    assert "^C" in terminal.shown
    assert "SIGINT: stopping" in terminal.shown
    finishes = (tmp_path / "finishes").read_text().splitlines()
    assert len(set(finishes)) == len(finishes) == 3 * workers
    assert all(line.endswith(" None") for line in finishes)
    assert "Traceback" not in terminal.shown


@pytest.mark.parametrize("workers", [1, 3])
def test_twice_ends_at_once(start_terminal: StartTerminal, tmp_path: Path, workers: int) -> None:
    """Busy task workers are gone too, and nobody prints a traceback."""
    more = "--max-wait-time=600", f"--worker-num={workers}"
    terminal = serve(start_terminal, tmp_path, *more, seconds=600)
    terminal.wait_shown(": ready in ")
    terminal.wait_shown_times(2, "runs")  # the lines of two processes may mix in a terminal
    terminal.press(CONTROL_C)
    terminal.wait_shown("SIGINT: stopping")

    def is_ending() -> bool:
        # One that comes at the heels of the first is taken for its echo, so press on.
        terminal.press(CONTROL_C)
        return "SIGINT: ending at once" in terminal.shown

    wait_until(is_ending, "the second one is heard")
    terminal.wait()

    assert "Traceback" not in terminal.shown


@pytest.mark.parametrize(
    "module", ["trioserver._cli", "attrs", "app", "trioserver._running", "trio", "trio_parallel"]
)
def test_it_ends_a_start_quietly(
    start_terminal: StartTerminal, tmp_path: Path, module: str
) -> None:
    """While our own modules are imported, the app, or what we build on: exit code 0, no word."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT.replace("MODULE", module))
    terminal = serve(start_terminal, tmp_path, seconds=0)
    terminal.wait_shown("begun\n")
    terminal.press(CONTROL_C)

    assert terminal.wait() == 0
    assert terminal.shown.replace("^C", "") == "begun\n"


def test_it_ends_a_script_quietly(start_terminal: StartTerminal, tmp_path: Path) -> None:
    """``run`` returns, and the script goes on."""
    (tmp_path / "app.py").write_text("async def on_receive(stream, data): ...\n")
    (tmp_path / "script.py").write_text(
        "import app, trioserver\n"
        "if __name__ == '__main__':\n"
        "    trioserver.run(app, trioserver.Settings(bind='127.0.0.1:0'))\n"
        "    print('goes on')\n"
    )
    terminal = start_terminal("script.py")
    terminal.wait_shown(": ready in ")
    terminal.press(CONTROL_C)

    assert terminal.wait() == 0
    assert terminal.shown.endswith("goes on\n")
    assert "Traceback" not in terminal.shown


def test_while_task_workers_boot(start_terminal: StartTerminal, tmp_path: Path) -> None:
    """Interpreters that are only just starting print no traceback, and the exit code is 0."""
    for _ in range(5):
        terminal = serve(start_terminal, tmp_path, seconds=0)
        pid = terminal.process.pid
        wait_until(lambda pid=pid: children_of(pid), "a worker is started")  # type: ignore[misc]
        terminal.press(CONTROL_C)

        assert terminal.wait() == 0
        assert "Traceback" not in terminal.shown
