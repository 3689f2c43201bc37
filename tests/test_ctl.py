"""``python -m trioserver.ctl`` against a real server, and against what is none."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from controls import FakeControls
from serving import PATIENCE, ROOT, ServerProcess, is_running, wait_until
from test_exports import loaded_by

from trioserver import ctl
from trioserver._ctl_text import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Start = Callable[..., ServerProcess]
    Control = Callable[..., tuple[int, str, str]]

SHOP = """\
import os, time
from trioserver import EofFraming, Settings

class App:
    settings = Settings(bind="127.0.0.1:0", task_worker_num=2, max_wait_time=0.1)
    framing = EofFraming(b"\\n")

    async def on_receive(self, stream, data):
        if data == b"hold":
            await stream.send_frame(b"held")
            import trio
            await trio.sleep_forever()
        await stream.send_frame(b"%d" % await stream.server.task(data))

    def on_task(self, task):
        self.wait()

    def wait(self):
        time.sleep(600)

    async def on_finish(self, completion):
        print(completion.task_id, completion.error, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Of the control socket."""
    return str(tmp_path / "control" / "sock")


@pytest.fixture
def shop(start_server: Start, tmp_path: Path, path: str) -> ServerProcess:
    """A server that runs tasks, which last."""
    (tmp_path / "shop.py").write_text(SHOP)
    return start_server("shop:App", "--control", f"unix:{path}")


@pytest.fixture
def control(path: str) -> Control:
    """Run the client: exit code, stdout and stderr."""

    def run(*arguments: str, path: str = path) -> tuple[int, str, str]:
        result = subprocess.run(
            [sys.executable, "-m", "trioserver.ctl", path, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return result.returncode, result.stdout, result.stderr

    return run


def lines(answer: tuple[int, str, str]) -> list[str]:
    """What a command that was done has printed."""
    code, out, err = answer
    assert (code, err) == (0, "")
    return out.splitlines()


def run_tasks(shop: ServerProcess, control: Control, *data: bytes) -> list[int]:
    """Post tasks, and wait until they run: their ids."""
    ids = [int(shop.ask(line + b"\n")) for line in data]

    def running() -> list[int]:
        _, out, _ = control("tasks", "--json")
        return [task["id"] for task in json.loads(out)["running"]]

    wait_until(lambda: set(ids) <= set(running()), f"tasks {ids} run")
    return ids


# A real server


def test_a_server_is_asked(shop: ServerProcess, control: Control) -> None:
    """How it is, which processes it has, what runs where."""
    pid = shop.process.pid
    first, second = run_tasks(shop, control, b"a", b"b")
    assert shop.ask(b"c\n")
    status = dict(
        re.split(r"\s{2,}", line, maxsplit=1)
        for line in map(str.strip, lines(control("status")))
        if "  " in line
    )
    assert {name: status[name] for name in ("pid", "state", "event workers")} == {
        "pid": str(pid),
        "state": "running",
        "event workers": "1",
    }
    assert status["task workers"] == "2 (2 busy, 0 idle, 0 dead)"

    workers = [line.split() for line in lines(control("workers"))]
    assert workers[1][:4] == ["0", str(pid), "running", "0"]
    assert {row[1] for row in workers[-2:]} == set(map(str, shop.children))
    assert [(row[0], row[2]) for row in workers[-2:]] == [("0", "busy"), ("1", "busy")]
    assert {row[-1] for row in workers[-2:]} == {str(first), str(second)}

    _, *rows, _, queued = lines(control("tasks"))
    assert {row.split()[0] for row in rows} == {str(first), str(second)}
    assert re.fullmatch(r"1 queued, the oldest for \d+\.\d{3} s", queued)


def test_the_stack_of_a_task(shop: ServerProcess, control: Control, tmp_path: Path) -> None:
    """Where it is, down to the app's on_task."""
    (task_id,) = run_tasks(shop, control, b"a")
    seen = lines(control("stack", str(task_id)))

    assert [re.sub(r"line \d+", "line N", line) for line in seen] == [
        f'  File "{tmp_path}/shop.py", line N in wait',
        f'  File "{tmp_path}/shop.py", line N in on_task',
    ]


def test_a_task_is_cancelled(shop: ServerProcess, control: Control) -> None:
    """Whoever has posted it; a second time there is none."""
    (task_id,) = run_tasks(shop, control, b"a")
    assert lines(control("cancel", str(task_id))) == ["cancelled"]
    wait_until(lambda: shop.printed, "it is over")
    assert shop.printed[0].startswith(f"{task_id} the task was cancelled while it ran")

    error = f"trioserver.ctl: error: no task {task_id} is queued or running\n"
    assert control("cancel", str(task_id)) == (1, "", error)


def test_a_server_is_stopped(shop: ServerProcess, control: Control, path: str) -> None:
    """It says so before it is gone; then nobody is there, and no file either."""
    assert lines(control("stop")) == ["a stop was asked for"]
    assert shop.wait() == 0
    assert os.listdir(os.path.dirname(path)) == []
    error = f"trioserver.ctl: error: {path}: cannot connect: no such file or directory\n"
    assert control("status") == (2, "", error)


def test_a_server_that_stops_answers(
    start_server: Start, tmp_path: Path, path: str, control: Control
) -> None:
    """To the very end, and refuses what makes no sense any more."""
    (tmp_path / "shop.py").write_text(SHOP)
    shop = start_server("shop:App", f"--control=unix:{path}", f"--max-wait-time={PATIENCE}")
    with shop.connect() as client:
        client.sendall(b"hold\n")
        assert client.recv(5) == b"held\n"
        shop.process.terminate()
        wait_until(lambda: "SIGTERM: stopping" in shop.log, "it has heard")
        assert "stopping" in lines(control("status"))[2]
        code, _, error = control("reload", "--task-workers-only")
        assert code == 1
        assert error == "trioserver.ctl: error: the server is stopping: it is not reloaded\n"
        shop.process.terminate()
        assert shop.wait() in {0, 1}


def test_refusals_as_json(shop: ServerProcess, control: Control) -> None:
    """The answer on stdout, its words on stderr as well; flags stand where they like."""
    code, out, err = control("--json", "stack", "4711")

    assert (code, err) == (1, "trioserver.ctl: error: no task 4711 is running\n")
    assert json.loads(out) == {"ok": False, "error": "no task 4711 is running"}
    assert json.loads(control("status", "--json", "--timeout", "9")[1])["pid"] == shop.process.pid


def test_a_socket_that_cannot_be_ends_the_start(
    start_server: Start, tmp_path: Path, shop: ServerProcess, path: str
) -> None:
    """Before anything else starts, in one line, with exit code 2; who lives there lives on."""
    directory = tmp_path / "second"
    directory.mkdir()
    (directory / "shop.py").write_text(SHOP)
    second = ServerProcess(directory, "shop:App", f"--control=unix:{path}", wait=False)

    assert second.wait() == 2
    assert second.log == f"trioserver: error: unix:{path}: address already in use\n"
    assert is_running(shop.process.pid)
    assert os.path.exists(path)


# What is no server, or none that is well


@contextmanager
def pretending(path: str, answer: bytes | None) -> Iterator[threading.Event]:
    """Somebody at ``path`` who says ``answer`` to whoever comes; nothing at all for None."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(PATIENCE)

        has_come = threading.Event()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                has_come.set()
                if answer is None:
                    client.recv(1000)  # until it gives up
                else:
                    client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield has_come
        finally:
            thread.join(PATIENCE)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "the server has closed the connection without an answer"),
        (b'{"ok": true', "the server has closed the connection without an answer"),
        (b"\xff\n", "the server has closed the connection without an answer"),
        (b"[]\n", "what answers there is no server of trioserver's"),
        (b"{}\n", "None"),
        (b'{"error": "\\u001b[31m"}\n', "\\x1b[31m"),
        (None, "the server has not answered within 0.2 s"),
    ],
)
def test_an_answer_that_is_none(
    path: str, control: Control, answer: bytes | None, error: str
) -> None:
    """In one line, which a terminal only shows, and with exit code 1."""
    with pretending(path, answer):
        timeout = "0.2" if answer is None else str(PATIENCE)
        result = control("status", "--timeout", timeout)

    assert result == (1, "", f"trioserver.ctl: error: {error}\n")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("nowhere", "no such file or directory"),
        ("stale", "connection refused"),
        ("x" * 200, "af_unix path too long"),
    ],
)
def test_where_no_server_is(tmp_path: Path, control: Control, place: str, reason: str) -> None:
    """With exit code 2."""
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
    path = f"unix:{tmp_path}/{place}"

    error = f"trioserver.ctl: error: {path}: cannot connect: {reason}\n"
    assert control("status", path=path) == (2, "", error)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "the following arguments are required: PATH, COMMAND"),
        (["sock"], "the following arguments are required: COMMAND"),
        (["sock", "go"], "argument COMMAND: invalid choice: 'go' .*"),
        (["sock", "cancel"], "the following arguments are required: ID"),
        (["sock", "stack", "x"], "argument ID: invalid int value: 'x'"),
        (["sock", "scale", "1.5"], "argument N: invalid int value: '1.5'"),
        (["sock", "status", "--timeout", "0"], "argument --timeout: must be a number above 0: '0'"),
        (["sock", "status", "--timeout", "nan"], "argument --timeout: must be .*: 'nan'"),
        (["sock", "status", "--jso"], "unrecognized arguments: --jso"),
    ],
)
def test_usage(arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong, in one line, with exit code 2."""
    with pytest.raises(SystemExit, match=r"^2$"):
        ctl.main(arguments)

    assert re.fullmatch(f"trioserver.ctl: error: {error}\n", capsys.readouterr().err)


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """And what exit codes mean."""
    with pytest.raises(SystemExit, match=r"^0$"):
        ctl.main(["--help"])
    out = capsys.readouterr().out

    assert "\nexamples:\n  python -m trioserver.ctl /run/shop/control status\n" in out
    assert "\nexit codes:\n  0 done; 1 " in out


def test_ctrl_c_is_quiet(path: str) -> None:
    """While it waits for an answer."""
    with (
        pretending(path, None) as has_come,
        subprocess.Popen(
            [sys.executable, "-m", "trioserver.ctl", path, "status", "--timeout", "600"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert has_come.wait(PATIENCE)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)

    assert (process.returncode, err) == (130, b"")


def test_a_reader_that_has_seen_enough(shop: ServerProcess, path: str) -> None:
    """A closed pipe is no error worth a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, "-m", "trioserver.ctl", path, "status"],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)

    assert (result.returncode, result.stderr) == (0, b"")


def test_the_client_loads_no_trio() -> None:
    """It answers at once."""
    assert not loaded_by("import trioserver.ctl") & {"trio", "attrs"}


# Text


def answer_to(command: str, **arguments: object) -> dict[str, object]:
    """What the server of `controls` answers."""
    import trio  # noqa: PLC0415

    from trioserver._control_answers import answer  # noqa: PLC0415

    return trio.run(answer, {"command": command, **arguments}, FakeControls())


def test_text_is_aligned() -> None:
    """Tables with a head, durations and sizes as people read them, a dash for nothing."""
    assert text_of("status", answer_to("status")).splitlines()[1:8] == [
        "pid            100",
        "state          running",
        "uptime         1 h 1 min",
        "connections    5",
        "event workers  2",
        "task workers   2 (1 busy, 0 idle, 1 dead)",
        "tasks",
    ]
    assert text_of("workers", answer_to("workers")).splitlines() == [
        "event worker  pid  state    connections  memory   uptime",
        "0             101  running  5            3.0 MiB  1 min 1 s",
        "1             -    dead     0            -        0.500 s",
        "",
        "task worker  pid  state  tasks done  memory   running",
        "0            102  busy   7           1.0 MiB  9",
        "1            -    dead   0           -        -",
    ]
    assert text_of("tasks", answer_to("tasks")).splitlines() == [
        "task  attempt  task worker  pid  running for",
        "9     2        0            102  1.500 s",
        "",
        "2 queued, the oldest for 0.250 s",
    ]


def test_text_of_a_server_without_tasks() -> None:
    """No table of nothing."""
    idle = {"ok": True, "running": [], "queued": 0, "oldest_queued": 0.0}
    workers = {**answer_to("workers"), "task_workers": []}

    assert text_of("tasks", idle) == "none running, 0 queued"
    assert "task worker" not in text_of("workers", workers)


def test_every_command_has_words() -> None:
    """Those that only do something, too."""
    assert text_of("reload", answer_to("reload")) == "a reload was asked for"
    assert text_of("stop", answer_to("stop")) == "a stop was asked for"
    assert text_of("cancel", answer_to("cancel", id=9)) == "cancelled"
    assert text_of("scale", answer_to("scale", task_worker_num=2)) == "2 task workers"
    assert text_of("stack", answer_to("stack", id=9)) == FakeControls().shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.000 s"),
        (59.9, "59.900 s"),
        (60.0, "1 min"),
        (3600.0, "1 h"),
        (90061.0, "1 d 1 h"),
        (86460.0, "1 d 1 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """The two largest units that there are."""
    answer = {**answer_to("status"), "uptime": seconds}

    assert text_of("status", answer).splitlines()[3] == f"uptime         {text}"
