"""The control socket: who is heard, what is answered, and that no client does any harm."""

from __future__ import annotations

import json
import re
import socket
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from controls import STATISTICS, FakeControls, connected, open_controlled
from net import logged
from workers import until

import trioserver
from trioserver import _control
from trioserver._addresses import UnixAddress
from trioserver._control import MAX_CLIENTS, MAX_REQUEST, ControlListener, bind_control
from trioserver._errors import AppError

if TYPE_CHECKING:
    from pathlib import Path

CLOSING = "closing the connection of a client: "


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of the socket."""
    return tmp_path / "control" / "sock"


# What is asked


async def test_status(path: Path) -> None:
    """The whole server in numbers."""
    async with open_controlled(path), connected(path) as client:
        answer = await client.ask("status")

    nothing = {"p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}
    assert answer == {
        "ok": True,
        "version": trioserver.__version__,
        "pid": 100,
        "uptime": 3700.5,
        "state": "running",
        "connections": 5,
        "event_workers": 2,
        "task_workers": 2,
        "idle_task_workers": 0,
        "dead_task_workers": 1,
        "tasks": {
            "posted": 10,
            "queued": 2,
            "running": 1,
            "completed": 7,
            "failed": 0,
            "timed_out": 0,
            "cancelled": 0,
            "crashed": 0,
            "abandoned": 0,
            "retried": 0,
        },
        "oldest_queued": 0.25,
        "wait": nothing,
        "run": nothing,
    }


@pytest.mark.parametrize(
    ("is_reloading", "is_stopping", "state"),
    [(True, False, "reloading"), (False, True, "stopping"), (True, True, "stopping")],
)
async def test_the_state_of_a_server(
    path: Path,
    is_reloading: bool,  # noqa: FBT001  # a parameter of the test
    is_stopping: bool,  # noqa: FBT001  # the same
    state: str,
) -> None:
    """A stop ends everything else."""
    async with open_controlled(path) as controls, connected(path) as client:
        controls.now = attrs.evolve(STATISTICS, is_reloading=is_reloading, is_stopping=is_stopping)
        assert (await client.ask("status"))["state"] == state


async def test_workers(path: Path) -> None:
    """Each process, and which tasks it runs; null for what cannot be known."""
    async with open_controlled(path), connected(path) as client:
        answer = await client.ask("workers")

    event = {"id": 0, "pid": 101, "state": "running", "connections": 5, "rss": 3 << 20}
    task = {"id": 0, "pid": 102, "state": "busy", "tasks_done": 7, "rss": 1 << 20, "running": [9]}
    assert answer == {
        "ok": True,
        "event_workers": [
            {**event, "uptime": 61.0},
            {"id": 1, "pid": None, "state": "dead", "connections": 0, "rss": None, "uptime": 0.5},
        ],
        "task_workers": [
            task,
            {"id": 1, "pid": None, "state": "dead", "tasks_done": 0, "rss": None, "running": []},
        ],
    }


async def test_tasks(path: Path) -> None:
    """What runs, where, since when, and how many wait."""
    async with open_controlled(path), connected(path) as client:
        answer = await client.ask("tasks")

    assert answer == {
        "ok": True,
        "running": [{"id": 9, "attempt": 2, "since": 1.5, "task_worker": 0, "pid": 102}],
        "queued": 2,
        "oldest_queued": 0.25,
    }


@pytest.mark.parametrize(
    ("request_", "heard", "answer"),
    [
        ({"command": "reload"}, ("reload", False), {}),
        ({"command": "reload", "task_workers_only": True}, ("reload", True), {}),
        ({"command": "stop"}, "shutdown", {}),
        ({"command": "cancel", "id": 9}, ("cancel", 9), {}),
        ({"command": "scale", "task_worker_num": 4}, ("scale", 4), {"task_workers": 2}),
    ],
)
async def test_what_a_server_is_told(
    path: Path, request_: dict[str, Any], heard: object, answer: dict[str, Any]
) -> None:
    """It does it, and says so."""
    async with open_controlled(path) as controls, connected(path) as client:
        assert await client.ask(**request_) == {"ok": True, **answer}
        assert controls.heard == [heard]


async def test_an_answer_has_any_size(path: Path) -> None:
    """Such as that of a stack."""
    async with open_controlled(path) as controls, connected(path) as client:
        controls.shown = "x" * 10_000_000
        assert await client.ask("stack", id=9) == {"ok": True, "stack": controls.shown}


async def test_requests_come_as_they_like(path: Path) -> None:
    """Several on a connection, several in a packet, one in many packets; answers in their order."""
    ask = [{"command": "stack", "id": number} for number in (9, 1, 9)]
    data = b"".join(json.dumps(request).encode() + b"\n" for request in ask)
    async with open_controlled(path), connected(path) as client:
        await client.stream.send_all(data)
        assert [(await client.hear())["ok"] for _ in ask] == [True, False, True]
        for byte in data:
            await client.stream.send_all(bytes([byte]))
            await trio.lowlevel.checkpoint()
        assert [(await client.hear())["ok"] for _ in ask] == [True, False, True]


# What is refused


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ([], r"a request is a JSON object: \[\]"),
        ({}, r"command must be one of status, workers, .*, stack: None"),
        ({"command": "go"}, r"command must be one of status, workers, .*, stack: 'go'"),
        ({"command": ["stop"]}, r"command must be one of .*: \['stop'\]"),
        ({"command": "x" * 1000}, r"command must be one of .*: 'x{59}\.\.\."),
        ({"command": "stop", "id": 1}, r"stop takes no 'id'"),
        ({"command": "cancel"}, r"cancel: id must be a number, 0 or above: None"),
        ({"command": "cancel", "id": -1}, r"cancel: id must be a number, 0 or above: -1"),
        ({"command": "cancel", "id": True}, r"cancel: id must be a number, 0 or above: True"),
        ({"command": "cancel", "id": 9.0}, r"cancel: id must be a number, 0 or above: 9.0"),
        ({"command": "cancel", "id": 2**63}, r"cancel: id must be a number, 0 or above: \d+"),
        ({"command": "cancel", "id": 1}, r"no task 1 is queued or running"),
        ({"command": "stack", "id": 1}, r"no task 1 is running"),
        ({"command": "scale", "task_worker_num": 0}, r"task_worker_num must be at least 1: 0"),
        (
            {"command": "reload", "task_workers_only": 1},
            r"reload: task_workers_only must be true or false: 1",
        ),
    ],
)
async def test_a_request_that_is_refused(path: Path, request_: object, error: str) -> None:
    """In words; nothing is done, and the next one is heard."""
    async with open_controlled(path) as controls, connected(path) as client:
        answer = await client.say(json.dumps(request_).encode() + b"\n")
        assert answer.keys() == {"ok", "error"}
        assert answer["ok"] is False
        assert re.fullmatch(error, answer["error"]), answer["error"]
        assert set(controls.heard) <= {("cancel", 1)}
        assert (await client.ask("status"))["ok"]


async def test_a_reload_of_a_server_that_stops_is_refused(path: Path) -> None:
    """While it stops, it answers."""
    async with open_controlled(path) as controls, connected(path) as client:
        await client.ask("stop")
        answer = await client.ask("reload")
        assert controls.heard == ["shutdown"]

    assert answer == {"ok": False, "error": "the server is stopping: it is not reloaded"}


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (AppError("the app does not import"), "the app does not import"),
        (RuntimeError(), "RuntimeError"),
        (KeyError(), "not found"),
    ],
)
async def test_what_a_server_refuses_is_answered(
    path: Path, raised: BaseException, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And not raised, nor logged: it is the client's affair."""
    async with open_controlled(path) as controls, connected(path) as client:
        controls.raises = raised
        assert await client.ask("status") == {"ok": False, "error": error}

    assert logged(caplog) == []


async def test_a_defect_costs_one_answer(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the server and its other clients go on."""
    async with open_controlled(path) as controls, connected(path) as client:
        controls.raises = ZeroDivisionError("by zero")
        answer = await client.ask("status")
        controls.raises = None
        assert (await client.ask("status"))["ok"]

    assert answer["error"] == "the server could not do that: ZeroDivisionError: by zero"
    assert logged(caplog) == ["a request by the control socket failed"]


# Clients that do no good


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\n",
        b"\n",
        b"\xff\xfe\x00\n",
        b"[" * 60_000 + b"\n",
        b"1" * 60_000 + b"\n",
        b"{'command': 'stop'}\n",
    ],
    ids=["http", "nothing", "binary", "nested", "number", "quotes"],
)
async def test_nonsense(path: Path, nonsense: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It is refused and logged, and the connection closed: nobody knows where the next one is."""
    async with open_controlled(path) as controls, connected(path) as client:
        answer = await client.say(nonsense)
        assert answer == {"ok": False, "error": "a request is a JSON object in one line"}
        assert await client.is_closed()
        assert controls.heard == []

    assert logged(caplog) == [
        f"unix:{path}: {CLOSING}what came is not JSON: {nonsense[:-1][:80]!r}"
    ]


@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_too_long_a_request(path: Path, end: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """With an end or without; one of just that size is none."""
    async with open_controlled(path), connected(path) as client:
        padding = MAX_REQUEST - len('{"command": "status"}')
        assert (await client.say(b'{"command": "status"}' + b" " * padding + b"\n"))["ok"]
        answer = await client.say(b'{"command": "status"}' + b" " * (padding + 1) + end)
        assert answer == {"ok": False, "error": f"a request has at most {MAX_REQUEST} bytes"}
        assert await client.is_closed()

    assert logged(caplog) == [f"unix:{path}: {CLOSING}a request has more than 65536 bytes"]


async def test_half_a_request(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is not done, though it could be read."""
    async with open_controlled(path) as controls, connected(path) as client:
        await client.stream.send_all(b'{"command": "stop"}')
        await client.stream.send_eof()
        assert await client.is_closed()
        assert controls.heard == []

    assert logged(caplog) == [
        f"""unix:{path}: {CLOSING}a request has no end: b'{{"command": "stop"}}'"""
    ]


@pytest.mark.parametrize("sends", [b"", b" "], ids=["nothing", "a trickle"])
async def test_a_client_that_asks_nothing(
    path: Path, sends: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is closed after a time, whatever it sends meanwhile."""
    monkeypatch.setattr(_control, "CLIENT_TIME", 0.1)
    async with open_controlled(path), connected(path) as client, trio.open_nursery() as nursery:

        async def trickle() -> None:
            while True:
                await client.stream.send_all(sends)
                await trio.sleep(0.01)

        nursery.start_soon(trickle if sends else trio.sleep_forever)
        assert await client.is_closed()
        nursery.cancel_scope.cancel()

    assert logged(caplog) == [f"unix:{path}: {CLOSING}no request came for 0.1 s"]


async def test_a_client_that_does_not_read(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is closed after a time."""
    async with open_controlled(path) as controls, connected(path) as hung:
        controls.shown = "x" * 10_000_000
        monkeypatch.setattr(_control, "CLIENT_TIME", 0.1)
        await hung.stream.send_all(b'{"command": "stack", "id": 9}\n')
        await until(lambda: logged(caplog), "the answer is given up")

    assert logged(caplog) == [f"unix:{path}: {CLOSING}an answer was not read for 0.1 s"]


async def test_a_client_that_does_not_read_holds_up_nobody(path: Path) -> None:
    """Others are answered meanwhile."""
    async with open_controlled(path) as controls, connected(path) as hung:
        controls.shown = "x" * 10_000_000
        await hung.stream.send_all(b'{"command": "stack", "id": 9}\n')
        for _ in range(20):
            async with connected(path) as client:
                assert (await client.ask("status"))["ok"]
        assert (await hung.hear())["ok"]


async def test_a_client_that_leaves(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Before a request, or before its answer: nobody minds."""
    async with open_controlled(path) as controls:
        async with connected(path):
            pass
        for _ in range(20):
            async with connected(path) as client:
                await client.stream.send_all(b'{"command": "stack", "id": 9}\n' * 1000)
            controls.shown += "x" * 1000
        async with connected(path) as client:
            assert (await client.ask("status"))["ok"]

    assert logged(caplog) == []


async def test_only_so_many_clients(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One more hears that; when one leaves there is room again."""
    async with open_controlled(path), AsyncExitStack() as clients:
        for _ in range(MAX_CLIENTS):
            client = await clients.enter_async_context(connected(path))
            assert (await client.ask("status"))["ok"]
        async with connected(path) as late:
            assert await late.hear() == {"ok": False, "error": "16 other clients are connected"}
            assert await late.is_closed()
        await client.stream.aclose()
        answer = {"ok": False}
        while not answer["ok"]:
            # Who is turned away at once cannot even ask.
            with suppress(trio.BrokenResourceError):
                async with connected(path) as another:
                    answer = await another.ask("status")

    assert logged(caplog)[0] == f"unix:{path}: {CLOSING}there are too many clients"


async def test_no_more_descriptors(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and tried again after a while."""

    class Exhausted(socket.socket):
        is_exhausted = True

        def accept(self) -> Any:  # as its parent has it
            if self.is_exhausted:
                self.is_exhausted = False
                raise OSError(24, "Too many open files")
            return super().accept()

    path.parent.mkdir()
    with Exhausted(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        sock.bind(str(path))
        sock.listen(1)
        async with trio.open_nursery() as nursery:
            listener = ControlListener(sock, UnixAddress(str(path)))
            nursery.start_soon(listener.serve, FakeControls())
            async with connected(path) as client:
                assert (await client.ask("status"))["ok"]
            nursery.cancel_scope.cancel()

    assert logged(caplog) == [f"cannot accept on unix:{path} for now: too many open files"]


# The block


async def test_what_the_block_raises_leaves_it_as_it_is(path: Path) -> None:
    """In no group; and the socket is gone."""
    with pytest.raises(ZeroDivisionError, match=r"^in the block$"):
        async with open_controlled(path):
            raise ZeroDivisionError("in the block")
    assert not path.exists()  # noqa: ASYNC240  # a moment


async def test_who_comes_early_waits(path: Path) -> None:
    """From when the socket is bound until it is served."""
    with bind_control(f"unix:{path}") as listener:
        async with connected(path) as client, trio.open_nursery() as nursery:
            await client.stream.send_all(b'{"command": "status"}\n')
            nursery.start_soon(listener.serve, FakeControls())
            assert (await client.hear())["ok"]
            nursery.cancel_scope.cancel()


async def test_the_end_of_the_block_does_not_wait_for_clients(path: Path) -> None:
    """Whatever they do at the time."""
    async with AsyncExitStack() as clients:
        async with open_controlled(path) as controls:
            controls.shown = "x" * 10_000_000
            idle, hung = [await clients.enter_async_context(connected(path)) for _ in range(2)]
            assert (await idle.ask("status"))["ok"]
            await hung.stream.send_all(b'{"command": "stack", "id": 9}\n')
            await trio.testing.wait_all_tasks_blocked()
        assert await idle.is_closed()
