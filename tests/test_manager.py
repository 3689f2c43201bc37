"""Several processes from outside: who is there, who serves whom, and how all of it ends."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest
from many import command_of, many_processes
from serving import ServerProcess, is_running, wait_until

if TYPE_CHECKING:
    from pathlib import Path

SEED = """
import json, os, time
from trioserver import Settings

class App:
    settings = Settings(bind="127.0.0.1:0", worker_num=3, task_worker_num=4)

    async def on_receive(self, stream, data):
        order = {"message": "sss", "code": 200}
        await stream.server.task(order)
        await stream.send_all(json.dumps(order).encode())
        print("served by", stream.server.worker_id, os.getpid())

    def on_task(self, task):
        time.sleep(2)
        return task.data

    async def on_finish(self, completion):
        print("task", completion.task_id, "on", completion.task_worker, completion.result)
"""


def test_the_seeds_program(tmp_path: Path) -> None:
    """3 + 4 processes and their manager; three clients have three event and three task workers."""
    (tmp_path / "shop.py").write_text(SEED)
    server = ServerProcess(tmp_path, "shop:App")
    try:
        assert command_of(server.process.pid) == "trioserver: manager (shop:App)"
        assert sorted(command_of(pid) for pid in server.children) == [
            *(f"trioserver: event worker {number} (shop:App)" for number in range(3)),
            *(f"trioserver: task worker {number} (shop:App)" for number in range(4)),
        ]
        clients = [server.connect() for _ in range(3)]
        for client in clients:
            client.sendall(b"hello world\n")
            assert client.recv(1000) == b'{"message": "sss", "code": 200}'
        wait_until(lambda: sum("served" in line for line in server.printed) == 3, "three served")
        served = [line.split() for line in server.printed if line.startswith("served")]
        assert sorted(words[2] for words in served) == ["0", "1", "2"]
        assert len({words[3] for words in served}) == 3
        wait_until(lambda: sum("task" in line for line in server.printed) == 3, "three finishes")
        finishes = [line.split() for line in server.printed if line.startswith("task")]
        assert len({words[1] for words in finishes}) == 3
        assert len({words[3] for words in finishes}) == 3
        for client in clients:
            client.close()
        assert server.stop() == 0
    finally:
        server.close()


def test_the_manager_does_not_import_the_app(tmp_path: Path) -> None:
    """Whoever does is a child: who checks it, and the workers."""
    with many_processes(tmp_path) as server:
        imported = {int(line) for line in server.lines("imports")}
        assert server.pid not in imported
        assert imported >= {*server.event_workers, *server.task_workers}


def assert_gone(pids: list[int]) -> None:
    wait_until(lambda: not any(map(is_running, pids)), "all are gone")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_graceful_stop(tmp_path: Path, signum: int) -> None:
    """Tasks of all event workers run out and are heard, their workers stop, nothing is left."""
    with many_processes(tmp_path, task_workers=1) as server:
        clients = server.clients_of_all()
        clients[0].ask("post wait go")
        server.wait_file("go.begun")
        for client in clients.values():
            client.ask("post x 1")
        tree = server.tree
        server.signal(signum)
        server.wait_log("stopping, within")
        server.touch("go")
        assert server.wait() == 0
        assert sum(line.startswith("finished") for line in server.printed) == 3
        assert sum(line.startswith("stopped") for line in server.printed) == 2
        assert not any(map(is_running, tree))
        assert "Traceback" not in server.log
        assert "abandoned" not in server.log


def test_a_signal_to_all_processes_is_one_stop(tmp_path: Path) -> None:
    """TERM to every process, as a control group gets it: exit code 0, tasks end, no traceback."""
    with many_processes(tmp_path) as server:
        client = server.client()
        client.ask("post wait go")
        server.wait_file("go.begun")
        for pid in server.tree:
            os.kill(pid, signal.SIGTERM)
        server.touch("go")
        assert server.wait() == 0
        assert [line for line in server.printed if "finished" in line] == ["finished 0 go one"]
        assert "Traceback" not in server.log


def test_event_workers_that_hear_of_the_stop_first(tmp_path: Path) -> None:
    """They ask to be replaced, as one does that is told alone to leave; nobody complains of it."""
    with many_processes(tmp_path) as server:
        for pid in [*server.event_workers, server.process.pid]:
            os.kill(pid, signal.SIGTERM)
        assert server.wait() == 0
        assert "recycled" not in server.log


def test_what_does_not_end_in_time_is_cut(tmp_path: Path) -> None:
    """Within the time of a stop; its completion is heard, and the exit code is 1."""
    with many_processes(tmp_path, "--max-wait-time=0.3") as server:
        server.client().ask("post hang x")
        server.wait_file("x.begun")
        assert server.stop() == 1
        assert "finished 0 TaskCancelled" in server.printed
        assert "1 tasks and callbacks were cut" in server.log


def test_a_second_signal_and_quit_end_at_once(tmp_path: Path) -> None:
    """Whatever tasks and callbacks do; what that cuts is counted, and the exit code is 1."""
    for number, signums in enumerate([(signal.SIGTERM, signal.SIGTERM), (signal.SIGQUIT,)]):
        directory = tmp_path / str(number)
        directory.mkdir()
        with many_processes(directory, "--max-wait-time=600") as server:
            server.client().ask("post hang x")
            server.wait_file("x.begun")
            tree = server.tree
            for signum in signums:
                server.signal(signum)
                server.wait_log(signal.Signals(signum).name)
                time.sleep(0.05)  # beyond what counts as an echo of the first one
            assert server.wait() == 1
            assert_gone(tree)
            assert "1 tasks and callbacks were cut" in server.log
            assert "Traceback" not in server.log


def test_a_stop_does_not_wait_for_a_worker_that_is_stopped(tmp_path: Path) -> None:
    """It is killed soon after the deadline, and counts as cut."""
    with many_processes(tmp_path, "--max-wait-time=0.3", "--worker-timeout=600") as server:
        os.kill(server.event_workers[0], signal.SIGSTOP)
        assert server.stop() == 1
        assert "does not answer: it is killed" in server.log


def test_nothing_outlives_a_killed_manager(tmp_path: Path) -> None:
    """Event workers, busy ones too, and task workers are gone, and the port is free at once."""
    with many_processes(tmp_path) as server:
        clients = server.clients_of_all()
        clients[0].ask("post hang x")
        server.wait_file("x.begun")
        clients[1].send("block y")
        server.wait_file("y.begun")
        os.kill(clients[0].pid, signal.SIGSTOP)
        tree, port = server.tree, server.port
        server.process.kill()
        server.process.wait()
        assert_gone(tree)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            sock.listen()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no start", "trioserver: error: on_worker_start raised RuntimeError: no start today"),
        ("die at start", "while it was starting (exit code 7)"),
    ],
)
def test_a_worker_that_cannot_start_ends_the_start(tmp_path: Path, name: str, words: str) -> None:
    """With its reason, said once, and exit code 2."""
    (tmp_path / name).touch()
    with many_processes(tmp_path, wait=False) as server:
        assert server.wait() == 2
        assert server.log.count(words) == 1
        assert ": ready in " not in server.log


def test_an_app_that_does_not_load_is_said_once(tmp_path: Path) -> None:
    """Before anything else is started."""
    with many_processes(tmp_path, text="raise ValueError('no good')", wait=False) as server:
        assert server.wait() == 2
        assert server.log.count("ValueError: no good") == 2  # in the traceback and in the refusal
        assert "trioserver: error: app cannot be loaded: ValueError: no good" in server.log


def test_shutdown_is_for_the_whole(tmp_path: Path) -> None:
    """Any event worker may ask for it."""
    with many_processes(tmp_path) as server:
        assert server.client().ask("shutdown") == "asked"
        assert server.wait() == 0


def test_statistics_and_cancel_are_for_the_whole(tmp_path: Path) -> None:
    """An event worker sees and cancels what another one has posted."""
    with many_processes(tmp_path, task_workers=1) as server:
        one, other = server.clients_of_all().values()
        task_id = one.ask("post hang x")
        queued = one.ask("post y")
        server.wait_file("x.begun")
        # The answer may be there before the post has left the process.
        wait_until(lambda: other.statistics()["posted"] == 2, "both are posted")
        found = other.statistics()
        assert (found["queued"], found["running"]) == (1, 1)
        assert found["connections"] >= 2
        assert sorted(pid for _, pid, _ in found["workers"]) == sorted(server.event_workers)
        assert other.ask(f"cancel {queued}") == "True"
        assert other.ask(f"cancel {task_id}") == "True"
        server.wait_printed(f"finished {task_id} TaskCancelled")
        server.wait_printed(f"finished {queued} TaskCancelled")
        assert other.ask(f"cancel {task_id}") == "False"


def test_ids_are_unique_over_all(tmp_path: Path) -> None:
    """Of connections and of tasks, also of those that tasks post."""
    with many_processes(tmp_path) as server:
        clients = server.clients_of_all()
        ids = [client.ask("post x") for client in clients.values() for _ in range(10)]
        ids += [client.ask("run child z").split()[0] for client in clients.values()]
        assert len(set(ids)) == len(ids) == 22
        wait_until(lambda: len(server.lines("runs")) == 24, "all run")
        assert len({line.split()[0] for line in server.lines("runs")}) == 24


def test_connections_spread_evenly(tmp_path: Path) -> None:
    """Of 200 over 4 workers none has more than half as much again as its share."""
    with many_processes(tmp_path, workers=4, task_workers=0) as server:
        counts: dict[int, int] = {}
        for _ in range(200):
            client = server.client()
            counts[client.pid] = counts.get(client.pid, 0) + 1
        assert len(counts) == 4
        assert max(counts.values()) <= 75
