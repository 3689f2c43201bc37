"""Every example, served as its header says and talked to by its own client where it has one."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, TextIO

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message
from serving import PATIENCE, ROOT, ServerProcess, is_running, wait_until

from trioserver import LengthFraming
from trioserver.testing import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import Message as Mail
    from pathlib import Path

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


def test_progress_is_seen_by_the_client(start_server: StartServer) -> None:
    """Of each task its steps in order, as many as it could be told of, and at last the result."""
    server = start_server("examples.progress:App", "--bind", "127.0.0.1:0")

    with server.connect() as client, client.makefile("r") as answers:
        client.sendall(b"1\n2\n3\n")
        lines: list[str] = []
        while sum(" done by task worker " in line for line in lines) < 3:
            lines.append(answers.readline())

    for task_id in range(3):
        *steps, done = [line for line in lines if line.startswith(f"task {task_id}")]
        numbers = [int(step.split()[4]) for step in steps]
        assert steps == [
            f"task {task_id}, attempt 1: {number} of {task_id + 1}\n" for number in numbers
        ]
        assert numbers
        assert numbers == sorted(set(numbers))
        assert re.fullmatch(rf"task {task_id} done by task worker [01]\n", done)


def test_progress_begins_again_when_the_worker_is_killed(start_server: StartServer) -> None:
    """As the header says, by hand; and the task leaves with its client."""
    server = start_server("examples.progress:App", "--bind=127.0.0.1:0", "--task-worker-num=1")

    with server.connect() as client, client.makefile("r") as answers:
        client.sendall(b"600\n")
        assert answers.readline().startswith("task 0, attempt 1: ")
        (worker,) = server.children
        os.kill(worker, signal.SIGKILL)
        while not (line := answers.readline()).startswith("task 0, attempt 2: "):
            assert line.startswith("task 0, attempt 1: ")

    assert server.stop() == 0


def hear(file: TextIO, wanted: str) -> None:
    """Read lines until ``wanted`` comes."""
    while (line := file.readline()) != wanted:
        assert line, f"the end came before {wanted!r}"


def test_chat_reaches_clients_of_all_event_workers(start_server: StartServer) -> None:
    """Whoever says something is heard by all, in order, whichever process serves them."""
    server = start_server("examples.chat:App", "--bind", "127.0.0.1:0")

    with ExitStack() as stack:
        hearers: list[TextIO] = []
        speakers: list[socket.socket] = []
        places: list[str] = []
        for number in range(6):
            client = stack.enter_context(server.connect())
            client.sendall(b"client%d\n" % number)
            hearer: TextIO = stack.enter_context(client.makefile("r"))
            mine = re.compile(rf"([012]) \* client{number} is here\n")
            # What others have said just before may be on its way here still.
            found = None
            while found is None:
                found = mine.fullmatch(hearer.readline())
            places.append(found[1])
            for before in hearers:
                hear(before, found[0])
            speakers.append(client)
            hearers.append(hearer)
        assert set(places) == {"0", "1", "2"}

        speakers[0].sendall(b"how\nare\nyou\n")
        for each in hearers:
            for word in ("how", "are", "you"):
                assert each.readline() == f"{places[0]} client0: {word}\n"
        hearers[0].close()
        speakers[0].close()
        for each in hearers[1:]:
            assert each.readline() == f"{places[0]} * client0 has left\n"


def test_async_tasks_ask_several_at_once(start_server: StartServer) -> None:
    """Services that answer only when all are asked are asked at the same time."""
    server = start_server("examples.async_tasks:App", "--bind", "127.0.0.1:0")

    with socket.create_server(("127.0.0.1", 0)) as service, server.connect() as client:
        service.settimeout(PATIENCE)
        address = f"127.0.0.1:{service.getsockname()[1]}"
        # Two names for one service, and one that nobody has.
        client.sendall(f"{address} localhost:{address[10:]} 127.0.0.1:1\n".encode())
        asking = [service.accept()[0] for _ in range(2)]
        for number, connection in enumerate(asking):
            with closing(connection):
                assert connection.recv(100) == b"hello from task 0"
                connection.sendall(b"answer %d" % number)
        answers = json.loads(client.makefile("rb").readline())

    assert answers.pop("127.0.0.1:1").startswith("no answer: ")
    assert sorted(answers) == [address, f"localhost:{address[10:]}"]
    assert sorted(answers.values()) == ["answer 0", "answer 1"]


@pytest.fixture
def http(tmp_path: Path) -> Iterator[tuple[ServerProcess, str]]:
    """The HTTP example, to whom a warning is an error, and where it listens."""
    script = f"{ROOT}/examples/http_tasks.py"
    server = ServerProcess(tmp_path, "127.0.0.1:0", command=("-Werror", script), wait=False)
    try:
        wait_until(
            lambda: " Running on http://" in server.log or server.process.poll() is not None,
            "it listens",
        )
        found = re.search(r" Running on (http://\S+)", server.log)
        assert found, server.log
        yield server, found[1]
    finally:
        server.close()


def ask(url: str, data: bytes | None = None) -> tuple[int, object]:
    """POST ``data``, or GET: status and answer."""
    try:
        with urllib.request.urlopen(url, data, timeout=PATIENCE) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.load(exc)


def test_http_orders_are_accepted_at_once_and_done_later(
    http: tuple[ServerProcess, str],
) -> None:
    """A POST is answered before the order is worked on; a GET shows what has become of it."""
    _, url = http

    assert ask(f"{url}/orders", b"tea") == (202, {"id": 0})
    assert ask(f"{url}/orders/1") == (404, None)
    wait_until(lambda: ask(f"{url}/orders/0")[1] != {"state": "accepted"}, "the order is done")

    assert ask(f"{url}/orders/0") in [
        (200, {"state": "done", "outcome": f"tea from task worker {number}"}) for number in range(2)
    ]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_http_ends_by_a_signal_when_its_orders_are_done(
    http: tuple[ServerProcess, str], signum: int
) -> None:
    """Without a traceback, a warning or a process left, also where all get the signal."""
    server, url = http
    workers = server.children
    assert ask(f"{url}/orders", b"tea") == (202, {"id": 0})

    os.killpg(server.process.pid, signum)

    assert server.wait() == 0
    assert re.fullmatch(r"order 0 is done: tea from task worker [01]\n", server.out.read_text())
    (line,) = server.log.splitlines()
    assert " Running on http://" in line
    assert workers
    assert not any(map(is_running, workers))
