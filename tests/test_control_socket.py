"""Where the control socket lies, and who may come near it: real files, real users."""

from __future__ import annotations

import os
import socket
import stat
import sys
from typing import TYPE_CHECKING

import pytest
import trio
from controls import connected, open_controlled
from net import logged

from trioserver import _control
from trioserver._control import bind_control
from trioserver._errors import AddressError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
VISIT = f"""
import os, socket, sys

os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
with socket.socket(socket.AF_UNIX) as sock:
    try:
        sock.connect(sys.argv[1])
        sock.sendall(b'{{"command": "stop"}}\\n')
        print(sock.recv(100))
    except OSError as exc:
        print(exc.strerror)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of the socket; its directory is not there yet."""
    return tmp_path / "control" / "sock"


@pytest.fixture
def _open_to_all() -> Iterator[None]:
    """Whatever is made is open to all, unless it says otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    """Its permissions."""
    return stat.S_IMODE(os.stat(path).st_mode)


def refused(path: Path) -> str:
    """Why nothing can be bound there."""
    with pytest.raises(AddressError) as raised, bind_control(f"unix:{path}"):
        pass
    address, _, reason = str(raised.value).partition(": ")
    assert address == f"unix:{path}"
    return reason


@pytest.mark.usefixtures("_open_to_all")
def test_nobody_else_may_come_near(path: Path) -> None:
    """The directory is made with mode 0700, and the socket has 0600."""
    with bind_control(f"unix:{path}"):
        assert stat.S_ISSOCK(os.stat(path).st_mode)
        assert mode_of(path.parent) == 0o700
        assert mode_of(path) == 0o600


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the directory must do")
@pytest.mark.usefixtures("_open_to_all")
def test_the_socket_is_private_from_the_moment_it_exists(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no window: its mode is not an afterthought."""
    seen: list[int] = []
    bind = socket.socket.bind

    class Watched(socket.socket):
        def bind(self, address: object) -> None:
            bind(self, address)  # type: ignore[arg-type]  # a path
            seen.append(mode_of(path))

    monkeypatch.setattr(socket, "socket", Watched)
    with bind_control(f"unix:{path}"):
        assert seen == [0o600]


def test_an_own_directory_may_be_there(path: Path) -> None:
    """If it is closed to others, though more than that to us."""
    path.parent.mkdir(0o500)
    path.parent.chmod(0o700)
    with bind_control(f"unix:{path}"):
        assert path.is_socket()


@pytest.mark.parametrize("mode", [0o710, 0o701, 0o755, 0o1777])
def test_a_directory_that_others_may_enter(path: Path, mode: int) -> None:
    """It is refused, and not silently closed to those."""
    path.parent.mkdir()
    path.parent.chmod(mode)

    assert refused(path) == (
        f"others may enter {path.parent} (mode {mode:04o}); it must have mode 0700"
    )
    assert mode_of(path.parent) == mode


@as_root
def test_a_directory_of_somebody_else(path: Path) -> None:
    """That user could put another socket there."""
    path.parent.mkdir(0o700)
    os.chown(path.parent, NOBODY, NOBODY)

    assert refused(path) == f"{path.parent} belongs to another user (uid {NOBODY})"


def test_other_things_that_are_no_directory(path: Path, tmp_path: Path) -> None:
    """A link, a file, a way that leads nowhere."""
    path.parent.symlink_to(tmp_path)
    assert refused(path) == f"{path.parent} is not a directory"
    path.parent.unlink()
    path.parent.touch()
    assert refused(path) == f"{path.parent} is not a directory"
    deep = tmp_path / "no" / "such" / "sock"
    assert refused(deep) == f"cannot make {deep.parent}: no such file or directory"


def test_an_address_that_is_no_path() -> None:
    """Settings refuse it before; so does this."""
    with (
        pytest.raises(AddressError, match=r"^127\.0\.0\.1:1: a control address is 'unix:/path'$"),
        bind_control("127.0.0.1:1"),
    ):
        pass


def test_the_socket_goes_with_its_server(path: Path) -> None:
    """Its directory stays, for the next one."""
    with bind_control(f"unix:{path}"):
        pass

    assert list(path.parent.iterdir()) == []


def test_a_socket_of_another_server_stays(path: Path) -> None:
    """Who has replaced ours keeps its own."""
    with bind_control(f"unix:{path}"):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))

    assert path.is_socket()


async def test_a_stale_socket_is_replaced(path: Path) -> None:
    """As a killed server leaves it behind."""
    path.parent.mkdir(0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with open_controlled(path), connected(path) as client:
        assert (await client.ask("status"))["ok"]


def test_a_live_server_keeps_its_socket(path: Path) -> None:
    """Also one that is starting, and does not answer yet; and so does a file that is no socket."""
    with bind_control(f"unix:{path}"):
        assert refused(path) == "address already in use"
        assert path.is_socket()
    path.write_text("something else")
    assert refused(path) == "the file exists and is not a socket"
    assert path.read_text() == "something else"


@as_root
async def test_another_user_cannot_connect(path: Path) -> None:
    """To a socket in a directory of ours."""
    async with open_controlled(path) as controls:
        path.chmod(0o777)  # noqa: ASYNC240  # a moment
        for directory in path.parents[1:4]:
            directory.chmod(0o755)  # noqa: ASYNC240  # the same
        assert await visit(path) == "Permission denied"
        assert controls.heard == []


@as_root
async def test_another_user_is_turned_away(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Though all doors were opened since: whose process it is decides."""
    async with open_controlled(path) as controls:
        path.chmod(0o777)  # noqa: ASYNC240  # a moment
        for directory in path.parents[:4]:
            directory.chmod(0o755)  # noqa: ASYNC240  # the same
        assert await visit(path) in {"b''", "Connection reset by peer", "Broken pipe"}
        assert controls.heard == []
        async with connected(path) as client:
            assert (await client.ask("status"))["ok"]

    assert logged(caplog) == [f"unix:{path}: turned away a client of another user (uid {NOBODY})"]


async def visit(path: Path) -> str:
    """What another user gets who asks for a stop."""
    result = await trio.run_process([sys.executable, "-c", VISIT, str(path)], capture_stdout=True)
    return result.stdout.decode().strip()


@pytest.mark.parametrize(
    ("uid", "own", "is_heard"),
    [(0, 0, True), (5, 5, True), (0, 5, True), (5, 0, False), (6, 5, False), (None, 5, False)],
)
async def test_whose_processes_are_heard(
    path: Path,
    uid: int | None,
    own: int,
    is_heard: bool,  # noqa: FBT001  # a parameter of the test
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of the server's user, and of root; nobody is where the system does not tell."""
    async with open_controlled(path):
        monkeypatch.setattr(os, "geteuid", lambda: own)
        monkeypatch.setattr(_control, "uid_of_peer", lambda _: uid)
        async with connected(path) as client:
            if is_heard:
                assert (await client.ask("status"))["ok"]
            else:
                assert await client.is_closed()
