"""Reloads of several processes: new code, and nothing lost."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from many import many_processes
from serving import is_running, wait_until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGHUP])
def test_all_workers_run_the_new_code(tmp_path: Path, signum: int) -> None:
    """USR1, and HUP: fresh event workers and fresh task workers, under the same numbers."""
    with many_processes(tmp_path) as server:
        before = {*server.event_workers, *server.task_workers}
        server.rewrite('"one"', '"two"')
        server.reload(signum)
        clients = server.clients_of_all()
        assert {client.marker for client in clients.values()} == {"two"}
        assert clients[0].ask("run x") == "x two"
        wait_until(lambda: not any(map(is_running, before)), "the old ones have left")
        assert len(server.event_workers) == len(server.task_workers) == 2
        assert server.stop() == 0


def test_task_workers_alone(tmp_path: Path) -> None:
    """USR2: event workers and their connections stay."""
    with many_processes(tmp_path) as server:
        client = server.client()
        event_workers, task_workers = server.event_workers, server.task_workers
        server.rewrite('"one"', '"two"')
        server.reload(signal.SIGUSR2)
        assert client.ask("run x") == "x two"
        assert client.ask("who").endswith("one")
        assert server.event_workers == event_workers
        wait_until(lambda: not any(map(is_running, task_workers)), "the old ones have left")


def test_old_ones_serve_what_they_have(tmp_path: Path) -> None:
    """Connections go on, for ``max_wait_time``; then idle ones close and callbacks go on."""
    with many_processes(tmp_path, "--max-wait-time=2") as server:
        clients = server.clients_of_all()
        server.rewrite('"one"', '"two"')
        server.reload(signal.SIGUSR1)
        assert clients[0].ask("who") == f"0 {clients[0].pid} one"
        clients[0].send("wait go")
        server.wait_file("go.begun")
        with pytest.raises(EOFError):
            clients[1].receive()
        wait_until(lambda: not is_running(clients[1].pid), "who has nothing more to do has left")
        assert is_running(clients[0].pid)
        server.touch("go")
        assert clients[0].receive() == "waited one"
        wait_until(lambda: not is_running(clients[0].pid), "the other one has left, too")
        assert "cut" not in server.log


def test_no_task_is_lost(tmp_path: Path) -> None:
    """What runs ends where it runs, what is queued runs the new code, and all is heard."""
    with many_processes(tmp_path, "--max-wait-time=0.2", task_workers=1) as server:
        clients = server.clients_of_all()
        running = clients[0].ask("post wait go")
        server.wait_file("go.begun")
        queued = clients[0].ask("post queued")
        (old,) = server.task_workers
        server.rewrite('"one"', '"two"')
        server.reload(signal.SIGUSR1)
        server.wait_printed(f"finished {queued} queued two")
        assert is_running(old)
        server.touch("go")
        server.wait_printed(f"finished {running} go one")
        wait_until(lambda: not is_running(old), "the old task worker has left")
        wait_until(lambda: not is_running(clients[0].pid), "so has who has posted them")
        assert len(server.lines("runs")) == 2


def test_broken_code_changes_nothing(tmp_path: Path) -> None:
    """The old workers go on; the error is logged with its place; the next reload may be right."""
    with many_processes(tmp_path) as server:
        client = server.client()
        workers = server.children
        server.rewrite('MARKER = "one"', 'MARKER = "two" +')
        server.signal(signal.SIGUSR1)
        server.wait_log("the reload ends here")
        assert "SyntaxError" in server.log
        assert server.children == workers
        assert client.ask("run x") == "x one"
        server.rewrite('MARKER = "two" +', 'MARKER = "three"')
        server.reload(signal.SIGUSR1)
        assert server.client().marker == "three"


def test_code_that_fails_only_in_a_worker(tmp_path: Path) -> None:
    """``on_worker_start`` raises: who could not be replaced goes on, and says why."""
    with many_processes(tmp_path) as server:
        event_workers = server.event_workers
        server.touch("no start")
        server.signal(signal.SIGUSR1)
        server.wait_log("the reload ends here")
        assert "RuntimeError: no start today" in server.log
        assert server.event_workers == event_workers
        assert server.client().ask("run x") == "x one"


def test_what_is_asked_for_meanwhile_follows_once(tmp_path: Path) -> None:
    """However often: the newest code is what runs in the end."""
    slow = "async def on_worker_start(server):\n"
    with many_processes(tmp_path) as server:
        server.rewrite(slow, slow + "    Path('starts').touch(); time.sleep(0.3)\n")
        server.signal(signal.SIGUSR1)
        server.wait_file("starts")
        server.rewrite('"one"', '"two"')
        for _ in range(5):
            server.signal(signal.SIGUSR1)
            server.pause()
        server.wait_log("INFO trioserver.manager: reloaded", 2)
        assert {client.marker for client in server.clients_of_all().values()} == {"two"}
        assert server.stop() == 0
        assert server.log.count("INFO trioserver.manager: reloading") == 2


def test_an_event_worker_can_ask(tmp_path: Path) -> None:
    """`Server.reload` is SIGUSR1, or SIGUSR2."""
    with many_processes(tmp_path) as server:
        event_workers = server.event_workers
        assert server.client().ask("reload tasks") == "asked"
        server.wait_log("reloaded task workers")
        assert server.event_workers == event_workers
        assert server.client().ask("reload") == "asked"
        server.wait_log("reloaded event and task workers")
        wait_until(lambda: not any(map(is_running, event_workers)), "the old ones have left")


def test_a_stop_during_a_reload(tmp_path: Path) -> None:
    """It ends the reload, and what is asked for then is refused with a line."""
    slow = "async def on_worker_start(server):\n"
    with many_processes(tmp_path) as server:
        server.rewrite(slow, slow + "    Path('starts').touch(); await trio.sleep(600)\n")
        server.signal(signal.SIGUSR1)
        server.wait_file("starts")
        client = server.client()
        client.send("wait go")
        server.wait_file("go.begun")
        server.signal(signal.SIGTERM)
        server.wait_log("stopping, within")
        server.signal(signal.SIGUSR1)
        server.wait_log("SIGUSR1: no reload: the server is stopping")
        server.touch("go")
        assert server.wait() == 0


def test_after_max_request_frames_another_process_takes_over(tmp_path: Path) -> None:
    """Connections stay, and no number is without its worker."""
    with many_processes(tmp_path, "--max-request=20") as server:
        client = server.client_of(0)
        for _ in range(21):
            client.ask("who")
        server.wait_log("is recycled")
        assert client.ask("who").startswith(f"0 {client.pid}")
        assert server.client_of(0).pid != client.pid
        client.close()
        wait_until(lambda: not is_running(client.pid), "the old one has left")


def test_frames_that_come_together_are_counted_each(tmp_path: Path) -> None:
    """Though nearly all of them are taken past the methods of their inbox."""
    with many_processes(tmp_path, "--max-request=20") as server:
        client = server.client_of(0)
        client.sock.sendall(b"who\n" * 20)
        assert len({client.receive() for _ in range(20)}) == 1
        server.wait_log("is recycled")


def test_a_stop_after_a_reload_bounds_old_ones_too(tmp_path: Path) -> None:
    """They had all the time that they needed; now they have that of the stop."""
    with many_processes(tmp_path, "--max-wait-time=0.3", task_workers=1) as server:
        client = server.client()
        task_id = client.ask("post hang x")
        server.wait_file("x.begun")
        server.reload(signal.SIGUSR1)
        os.kill(server.pid, signal.SIGTERM)
        assert server.wait() == 1
        assert f"finished {task_id} TaskCancelled" in server.printed
