"""Binding and listening on real sockets."""

from __future__ import annotations

import errno
import os
import re
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from trioserver._errors import AddressError
from trioserver._net._binding import bind_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trioserver._net._listeners import Listener


def port_of(listener: Listener) -> int:
    return int(listener.address.rpartition(":")[2])


@contextmanager
def refused(message: str) -> Iterator[None]:
    with pytest.raises(AddressError, match=f"^{re.escape(message)}$"):
        yield


def can_connect(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_port_zero_picks_one() -> None:
    """The listener's address has the port that was picked."""
    with bind_all(["127.0.0.1:0"]) as (listener,):
        assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d*", listener.address)


def test_clients_connect_only_when_it_listens() -> None:
    """A bound socket refuses clients, a listening one takes them, a closed one refuses again."""
    with bind_all(["127.0.0.1:0"]) as (listener,):
        port = port_of(listener)
        assert not can_connect(port)
        listener.listen(16)
        assert can_connect(port)
        listener.close()
        assert not can_connect(port)


def test_several_addresses(tmp_path: Path) -> None:
    """Each address has its listener, in the order given."""
    path = tmp_path / "socket"
    with bind_all(["127.0.0.1:0", f"unix:{path}", "127.0.0.1:0"]) as listeners:
        assert [listener.address.split(":")[0] for listener in listeners] == [
            "127.0.0.1",
            "unix",
            "127.0.0.1",
        ]
        assert listeners[1].address == f"unix:{path}"


def test_the_port_is_free_at_once_afterwards() -> None:
    """A server that ended with clients connected can be started again."""
    with bind_all(["127.0.0.1:0"]) as (listener,):
        port = port_of(listener)
        listener.listen(16)
        client = socket.create_connection(("127.0.0.1", port))
    with client, bind_all([f"127.0.0.1:{port}"]) as (again,):
        again.listen(16)
        assert can_connect(port)


def test_address_in_use() -> None:
    """An address on which someone listens is refused when it is bound."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with refused(f"{address}: address already in use"), bind_all([address]):
            pytest.fail("it was bound")


def test_address_taken_before_it_listens() -> None:
    """Two may bind an address, since neither listens yet; the second to listen is refused."""
    with bind_all(["127.0.0.1:0"]) as (first,), bind_all([first.address]) as (second,):
        first.listen(16)
        with refused(f"{second.address}: address already in use"):
            second.listen(16)


def test_an_error_releases_what_was_bound(tmp_path: Path) -> None:
    """When one address is refused, those before it are free again."""
    path = tmp_path / "socket"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(AddressError), bind_all([f"unix:{path}", taken]):
            pytest.fail("it was bound")
    assert not path.exists()


def test_an_address_of_someone_else() -> None:
    """An address that this machine does not have is refused."""
    with (
        refused("240.0.0.1:0: cannot assign requested address"),
        bind_all(["240.0.0.1:0"]),
    ):
        pytest.fail("it was bound")


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
def test_a_host_that_is_no_name(host: str) -> None:
    """A host that cannot be a name is refused as one that is unknown would be."""
    with refused(f"{host}:0: not a host name"), bind_all([f"{host}:0"]):
        pytest.fail("it was bound")


def test_an_unknown_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that cannot be resolved is refused with the resolver's reason."""

    def resolve(*args: object, **options: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with refused("nowhere.example:0: name or service not known"), bind_all(["nowhere.example:0"]):
        pytest.fail("it was bound")


def fake_resolver(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in hosts]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)


def test_a_name_with_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets a listener, and a port that is picked is the same for all."""
    fake_resolver(monkeypatch, "127.0.0.1", "127.0.0.2")
    with bind_all(["both.example:0"]) as (first, second):
        assert first.address == f"127.0.0.1:{port_of(first)}"
        assert second.address == f"127.0.0.2:{port_of(first)}"


def test_a_name_of_which_one_address_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is served where it can be: ``localhost`` also on a machine without IPv6."""
    fake_resolver(monkeypatch, "240.0.0.1", "127.0.0.1")
    with bind_all(["some.example:0"]) as (listener,):
        assert listener.address.startswith("127.0.0.1:")


def test_a_name_of_which_all_addresses_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the name is refused."""
    fake_resolver(monkeypatch, "240.0.0.1", "240.0.0.2")
    with (
        refused("none.example:0: cannot assign requested address"),
        bind_all(["none.example:0"]),
    ):
        pytest.fail("it was bound")


def test_a_privileged_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what ports need privileges; the system's answer is replayed."""

    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket, "socket", Refusing)
    with (
        refused("127.0.0.1:80: permission denied (ports below 1024 need privileges)"),
        bind_all(["127.0.0.1:80"]),
    ):
        pytest.fail("it was bound")


# Unix sockets


def test_the_file_goes_with_the_listener(tmp_path: Path) -> None:
    """The file is there while it is bound, and not afterwards."""
    path = tmp_path / "socket"
    with bind_all([f"unix:{path}"]):
        assert path.is_socket()
    assert not path.exists()


def test_a_stale_file_is_replaced(tmp_path: Path) -> None:
    """A socket on which nobody listens is what a server that was killed has left."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with bind_all([f"unix:{path}"]) as (listener,):
        listener.listen(16)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


@pytest.mark.parametrize("backlog_is_full", [False, True])
def test_a_living_server_is_left_alone(tmp_path: Path, *, backlog_is_full: bool) -> None:
    """A socket on which someone listens is in use, though its backlog be full."""
    path = tmp_path / "socket"
    with ExitStack() as stack:
        alive = stack.enter_context(socket.socket(socket.AF_UNIX))
        alive.bind(str(path))
        alive.listen(0)
        while backlog_is_full:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(str(path)):
                break
        with refused(f"unix:{path}: address already in use"), bind_all([f"unix:{path}"]):
            pytest.fail("it was bound")
        assert path.is_socket()


def test_a_file_that_is_no_socket(tmp_path: Path) -> None:
    """It is refused, and left as it is."""
    path = tmp_path / "file"
    path.write_text("precious")
    with (
        refused(f"unix:{path}: the file exists and is not a socket"),
        bind_all([f"unix:{path}"]),
    ):
        pytest.fail("it was bound")
    assert path.read_text() == "precious"


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """It is refused with the system's reason."""
    path = tmp_path / "nowhere" / "socket"
    with refused(f"unix:{path}: no such file or directory"), bind_all([f"unix:{path}"]):
        pytest.fail("it was bound")


def test_the_file_of_a_successor_is_left(tmp_path: Path) -> None:
    """A server removes its own file only, and not one that has taken its place since."""
    path = tmp_path / "socket"
    with bind_all([f"unix:{path}"]):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(path))
    assert path.is_socket()
