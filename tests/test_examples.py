"""Every example, served as its header says and talked to by its own client where it has one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message
from serving import PATIENCE, ROOT, ServerProcess

from trioserver import LengthFraming
from trioserver.testing import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import Message as Mail

    StartServer = Callable[..., ServerProcess]


def run_client(example: str, port: int) -> str:
    """Run the client that an example is, too; what it prints."""
    return subprocess.run(
        [sys.executable, f"{ROOT}/examples/{example}.py", str(port)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
        env={"PYTHONPATH": ROOT},
    ).stdout


def test_echo(start_server: StartServer) -> None:
    """What is sent comes back."""
    server = start_server("examples.echo", "--bind", "127.0.0.1:0")

    assert server.ask(b"hello\n") == b"hello\n"


def test_length_rpc_client(start_server: StartServer) -> None:
    """The client prints what a task worker computed."""
    server = start_server("examples.length_rpc:Calculator", "--bind", "127.0.0.1:0")

    assert run_client("length_rpc", server.port) == f"{2**100}\n"


async def test_length_rpc_errors_are_answers(start_server: StartServer) -> None:
    """Calls that fail are answered, too, in the order of the calls."""
    server = start_server("examples.length_rpc:Calculator", "--bind", "127.0.0.1:0")
    address = f"127.0.0.1:{server.port}"

    async with await Client.connect(address, framing=LengthFraming("N")) as client:
        for call in (["add", 1, 2], ["root", 2], ["factorial", -1]):
            await client.send(json.dumps(call).encode())
        await client.send(b"{")
        answers = [json.loads(await client.receive()) for _ in range(4)]

    assert answers[:3] == [
        {"result": 3},
        {"error": "KeyError: 'root'"},
        {"error": "ValueError: factorial() not defined for negative values"},
    ]
    assert answers[3]["error"].startswith("Expecting property name")


def test_thumbnails(start_server: StartServer) -> None:
    """A picture comes back small."""
    server = start_server("examples.thumbnails:App", "--bind", "127.0.0.1:0")

    large, _, _, small, _ = run_client("thumbnails", server.port).split()

    assert 0 < int(small) < int(large)


class Inbox(Message):
    """An SMTP server's handler that keeps what comes."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[Mail] = []

    def handle_message(self, message: Mail) -> None:
        self.mails.append(message)


@pytest.fixture
def inbox() -> Iterator[tuple[Inbox, str]]:
    """A real SMTP server, and where it listens."""
    handler = Inbox()
    with socket.create_server(("127.0.0.1", 0)) as free:  # the controller cannot pick one
        port = free.getsockname()[1]
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield handler, f"127.0.0.1:{port}"
    finally:
        controller.stop()


def test_mail(start_server: StartServer, inbox: tuple[Inbox, str]) -> None:
    """Each line is accepted at once, and mailed by a task worker."""
    handler, smtp = inbox
    server = start_server("examples.mail:App", "--bind", "127.0.0.1:0", env={"SMTP": smtp})

    assert server.ask(b"ada@example.org hello\n") == b"accepted as 0\n"
    server.wait_printed("sent 0 to ada@example.org")

    (mail,) = handler.mails
    assert mail["To"] == "ada@example.org"
    assert str(mail.get_payload()).strip() == "hello"


def test_client_says_that_nobody_listens() -> None:
    """Swoole's client does so, too."""
    client = subprocess.run(
        [sys.executable, f"{ROOT}/examples/client.py", "1"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert (client.returncode, client.stderr) == (1, "connect failed.\n")
