"""Event workers that die, stop or stand still, and what that costs others: nothing."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from many import many_processes
from serving import is_running, wait_until

if TYPE_CHECKING:
    from pathlib import Path


def test_a_killed_event_worker_is_replaced(tmp_path: Path) -> None:
    """Another process has its number; connections of others, and the manager, stay."""
    with many_processes(tmp_path) as server:
        clients = server.clients_of_all()
        os.kill(clients[0].pid, signal.SIGKILL)
        server.wait_log("event worker 0 (pid")
        fresh = server.client_of(0)
        assert fresh.pid != clients[0].pid
        assert clients[1].ask("who").startswith(f"1 {clients[1].pid}")
        assert server.log.count("; it is started again") == 1
        assert server.stop() == 0


def test_its_tasks_are_cancelled_or_run_on_and_count_as_abandoned(tmp_path: Path) -> None:
    """Those of its connections are cancelled, the server's run on; nobody hears of either."""
    with many_processes(tmp_path, task_workers=2) as server:
        clients = server.clients_of_all()
        clients[0].ask("own hang x")
        clients[0].ask("post wait go")
        clients[0].ask("post queued")
        other = clients[1].ask("post of another")
        server.wait_file("x.begun")
        server.wait_file("go.begun")
        os.kill(clients[0].pid, signal.SIGKILL)
        server.wait_log("has left 3 tasks of which nobody will hear")
        server.wait_printed(f"finished {other} another one")  # in the place of the cancelled one
        server.touch("go")
        wait_until(lambda: clients[1].statistics()["abandoned"] == 3, "three are abandoned")
        found = clients[1].statistics()
        assert (found["posted"], found["completed"], found["running"]) == (4, 1, 0)
        runs = [line.split()[0] for line in server.lines("runs")]
        assert len(runs) == len(set(runs)) == 4
        assert sum("finished" in line for line in server.printed) == 1


def test_what_runs_on_unheard_can_be_cancelled(tmp_path: Path) -> None:
    """By whoever knows its id."""
    with many_processes(tmp_path) as server:
        clients = server.clients_of_all()
        task_id = clients[0].ask("post hang x")
        server.wait_file("x.begun")
        os.kill(clients[0].pid, signal.SIGKILL)
        server.wait_log("nobody will hear")
        assert clients[1].ask(f"cancel {task_id}") == "True"
        wait_until(lambda: clients[1].statistics()["abandoned"] == 1, "it has ended")
        assert clients[1].ask(f"cancel {task_id}") == "False"


def test_what_an_abandoned_task_posts_runs(tmp_path: Path) -> None:
    """It is the server's, and counts as abandoned in its turn."""
    with many_processes(tmp_path, task_workers=1) as server:
        clients = server.clients_of_all()
        clients[0].ask("post wait go")
        server.wait_file("go.begun")
        clients[0].ask("post child late")
        # The answer may be there before the post has left the process.
        wait_until(lambda: clients[1].statistics()["posted"] == 2, "both are posted")
        os.kill(clients[0].pid, signal.SIGKILL)
        server.wait_log("nobody will hear")
        server.touch("go")
        wait_until(lambda: clients[1].statistics()["abandoned"] == 3, "all three")
        assert len(server.lines("runs")) == 3


def test_one_that_keeps_dying_is_started_less_and_less_often(tmp_path: Path) -> None:
    """Its reason is logged once; when that is mended it comes back, and a reload need not wait."""
    with many_processes(tmp_path) as server:
        clients = server.clients_of_all()
        server.touch("no start")
        os.kill(clients[0].pid, signal.SIGKILL)
        server.wait_log("on_worker_start raised RuntimeError: no start today; it is started again")
        assert clients[1].ask("who").startswith("1 ")
        server.remove("no start")
        assert server.client_of(0).pid != clients[0].pid
        assert server.log.count("RuntimeError: no start today; it is started again") == 1


def test_an_event_worker_that_exits_in_a_callback(tmp_path: Path) -> None:
    """It costs its own connections, and is said with its exit code."""
    with many_processes(tmp_path) as server:
        clients = server.clients_of_all()
        clients[0].send("exit 5")
        server.wait_log(f"event worker 0 (pid {clients[0].pid}) died (exit code 5)")
        with pytest.raises((EOFError, ConnectionResetError)):
            clients[0].receive()
        server.client_of(0)


def test_one_whose_loop_is_blocked_shows_where_and_is_replaced(tmp_path: Path) -> None:
    """After ``worker_timeout``; what a callback did that blocks is in the log."""
    with many_processes(tmp_path, "--worker-timeout=1") as server:
        clients = server.clients_of_all()
        clients[0].send("block never")
        server.wait_log("s: it is replaced")
        assert "in block_the_loop" in server.log
        assert f"event worker 0 (pid {clients[0].pid}) has not answered for" in server.log
        assert server.client_of(0).pid != clients[0].pid
        assert clients[1].ask("who").startswith("1 ")


def test_one_that_goes_on_in_time_stays(tmp_path: Path) -> None:
    """It was complained of, and answers again."""
    with many_processes(tmp_path, "--worker-timeout=6") as server:
        clients = server.clients_of_all()
        clients[0].send("block go")
        server.wait_file("go.begun")
        server.wait_log("has not answered for 2")
        server.touch("go")
        assert clients[0].receive() == "blocked"
        server.wait_log("answers again")
        assert clients[0].ask("who").startswith(f"0 {clients[0].pid}")


def test_one_that_is_stopped_is_replaced(tmp_path: Path) -> None:
    """SIGSTOP: the log says in which state it is."""
    with many_processes(tmp_path, "--worker-timeout=1") as server:
        clients = server.clients_of_all()
        os.kill(clients[0].pid, signal.SIGSTOP)
        server.wait_log("s: it is replaced")
        assert "it is stopped" in server.log
        assert server.client_of(0).pid != clients[0].pid
        wait_until(lambda: not is_running(clients[0].pid), "the stopped one is gone")


def test_one_that_writes_to_the_channel_is_replaced(tmp_path: Path) -> None:
    """What makes no sense there costs the process that wrote it, and no other."""
    with many_processes(tmp_path) as server:
        clients = server.clients_of_all()
        kept = clients[1].ask("post x")
        clients[0].send("garble")
        server.wait_log(f"event worker 0 (pid {clients[0].pid}) sent what makes no sense")
        server.wait_printed(f"finished {kept} x one")
        assert server.client_of(0).pid != clients[0].pid
        assert clients[1].ask("run y") == "y one"


def test_a_killed_task_worker_is_the_pools_affair(tmp_path: Path) -> None:
    """Its task has crashed where it was posted; the others run."""
    with many_processes(tmp_path, task_workers=2) as server:
        clients = server.clients_of_all()
        task_id = clients[0].ask("post hang x")
        server.wait_file("x.begun")
        found = clients[1].statistics()["task_workers"]
        (pid,) = [pid for _, pid, state in found if state == "busy"]
        os.kill(pid, signal.SIGKILL)
        server.wait_printed(f"finished {task_id} TaskWorkerCrashed")
        assert clients[1].ask("run y") == "y one"
        wait_until(lambda: len(server.task_workers) == 2, "the pool is whole")


def test_a_signal_to_one_event_worker_replaces_it_without_a_loss(tmp_path: Path) -> None:
    """SIGTERM: a successor is ready first; what the old one has begun it brings to its end."""
    with many_processes(tmp_path) as server:
        clients = server.clients_of_all()
        clients[0].send("wait go")
        server.wait_file("go.begun")
        os.kill(clients[0].pid, signal.SIGTERM)
        server.wait_log("is recycled")
        assert server.client_of(0).pid != clients[0].pid
        server.touch("go")
        assert clients[0].receive() == "waited one"
        for signum in (
            signal.SIGINT,
            signal.SIGHUP,
            signal.SIGUSR1,
            signal.SIGUSR2,
            signal.SIGQUIT,
        ):
            os.kill(clients[1].pid, signum)
        assert clients[1].ask("who").startswith(f"1 {clients[1].pid}")
