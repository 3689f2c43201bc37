"""The file with the server's process id: when it is there, and whom it keeps out."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from serving import PATIENCE, ROOT, ServerProcess

from trioserver import TrioserverError
from trioserver._pid_file import open_pid_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    StartServer = Callable[..., ServerProcess]

ECHO = """\
async def on_receive(stream, data):
    await stream.send_all(data)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file should be."""
    return tmp_path / "server.pid"


@pytest.fixture
def other() -> Iterator[int]:
    """The pid of another process that lives."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with process:
        yield process.pid
        process.kill()


def is_refused_by(reason: str, path: Path) -> bool:
    """Whether it cannot be opened for exactly that reason, and nothing is left beside it."""
    before = sorted(os.listdir(path.parent))
    with (
        pytest.raises(TrioserverError, match=f"^pid_file {re.escape(f'{path}: {reason}')}$"),
        open_pid_file(str(path)),
    ):
        pass
    return sorted(os.listdir(path.parent)) == before


def test_it_is_there_meanwhile(path: Path) -> None:
    """It has the number and a line's end, and leaves nothing behind."""
    with open_pid_file(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
        assert os.listdir(path.parent) == [path.name]
    assert os.listdir(path.parent) == []


def test_no_path_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty path is for none."""
    monkeypatch.chdir(tmp_path)
    with open_pid_file(""):
        assert os.listdir(tmp_path) == []


def test_it_stays_if_another_has_taken_it(path: Path) -> None:
    """What is removed is one's own."""
    with open_pid_file(str(path)):
        path.write_text("1\n")
    assert path.read_text() == "1\n"


def test_it_can_be_kept(path: Path) -> None:
    """For the program that the process goes on as, which takes it over."""
    with open_pid_file(str(path)) as file:
        file.hand_over()
    assert path.read_text() == f"{os.getpid()}\n"
    with open_pid_file(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_one_of_a_living_server(path: Path, other: int) -> None:
    """Refused, with its pid; the file stays as it is."""
    path.write_text(f"{other}\n")

    assert is_refused_by(f"a server lives already, process {other}", path)
    assert path.read_text() == f"{other}\n"


def test_one_of_a_dead_server(path: Path) -> None:
    """It is stale, and replaced."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    path.write_text(f"{done.pid}\n")
    with open_pid_file(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


def test_one_whose_number_is_another_process_now(path: Path, other: int) -> None:
    """A process that is younger than the file has not written it."""
    path.write_text(f"{other}\n")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    with open_pid_file(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("text", [b"", b"nonsense\n", b"-1\n", b"12 34\n", b"\xff\0"])
def test_nonsense(path: Path, text: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Replaced, and the log says so."""
    path.write_bytes(text)
    with open_pid_file(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
    assert caplog.messages == [f"pid_file {path} has no process id: it is replaced"]


@pytest.mark.parametrize("text", ["0\n", "9" * 40])
def test_a_number_of_no_process(path: Path, text: str) -> None:
    """Nobody lives under it."""
    path.write_text(text)
    with open_pid_file(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_directory(path: Path) -> None:
    """Refused."""
    path.mkdir()

    assert is_refused_by("is a directory", path)


def test_what_is_no_regular_file(path: Path) -> None:
    """A pipe, of which a read would never end, is refused, and is what it was; so are devices."""
    os.mkfifo(path)
    assert is_refused_by("is no regular file", path)
    assert path.is_fifo()


def test_a_link_to_a_device(path: Path) -> None:
    """What counts is what the path leads to, and the link is not replaced."""
    path.symlink_to(os.devnull)
    assert is_refused_by("is no regular file", path)
    assert path.is_symlink()


def test_a_directory_that_is_missing(path: Path) -> None:
    """Refused."""
    with (
        pytest.raises(TrioserverError, match=r"^pid_file .*/no/x: no such file or directory$"),
        open_pid_file(str(path.parent / "no" / "x")),
    ):
        pass


@pytest.mark.parametrize("call", ["open", "write", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """Refused with its reason, wherever it shows, and no half file is left."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)

    assert is_refused_by(os.strerror(number).lower(), path)


def test_a_server_has_one(start_server: StartServer, path: Path) -> None:
    """While it runs, of itself; a second server is kept out by it, and goes with exit code 2."""
    (path.parent / "echo.py").write_text(ECHO)
    arguments = ("echo", "--bind=127.0.0.1:0", "--worker-num=1", "--pid-file=server.pid")
    server = start_server(*arguments)
    assert path.read_text() == f"{server.process.pid}\n"

    second = subprocess.run(
        [sys.executable, "-m", "trioserver", *arguments],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (second.returncode, second.stdout) == (2, "")
    assert second.stderr == (
        "trioserver: error: pid_file server.pid: a server lives already, process "
        f"{server.process.pid}\n"
    )
    assert path.read_text() == f"{server.process.pid}\n"
    assert server.stop() == 0
    assert not path.exists()
