"""Before a reload: a fresh interpreter loads and checks the app as it is now."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

import attrs
import trio

from trioserver._errors import AppError, TrioserverError, summary_of
from trioserver._processes._plan import Plan, load_as_planned, plan_of
from trioserver._processes._python import python_command
from trioserver._refusals import traceback_of
from trioserver._settings import Settings
from trioserver._tasks._lifeline import die_with

if TYPE_CHECKING:
    import subprocess

logger = logging.getLogger("trioserver.server")

_CHECK_TIME: Final = 60
"""Seconds that an app may take to load."""


async def check_anew(plan: Plan) -> Plan:
    """Load and check the app of ``plan`` as its files are now, in a process of its own.

    The settings stay as they are; if the app's own are others now, that is logged.

    Raises:
      AppError: if it is broken; the message says what is wrong, and has the traceback if there is
        one.
    """
    if plan.spec is None:
        raise AppError(f"{plan.name} cannot be checked by another process: it has no name there")
    try:
        with ExitStack() as stack:
            answers = stack.enter_context(tempfile.TemporaryFile())
            lifeline, our_end = os.pipe()
            stack.callback(os.close, lifeline)
            stack.callback(os.close, our_end)
            done: subprocess.CompletedProcess[bytes] | None = None
            with trio.move_on_after(_CHECK_TIME):
                done = await trio.run_process(
                    python_command("check", str(answers.fileno()), str(lifeline)),
                    stdin=plan.to_json().encode(),
                    pass_fds=(answers.fileno(), lifeline),
                    process_group=0,  # which dies as one, with what the modules have started
                    check=False,
                    deliver_cancel=_kill,
                )
            if done is None:
                raise AppError(f"{plan.name} has not been loaded after {_CHECK_TIME} s")
            answers.seek(0)
            text = answers.read()
    except OSError as exc:
        raise AppError(f"{plan.name} cannot be checked: {summary_of(exc)}") from exc
    if not text:
        raise AppError(f"{plan.name} cannot be loaded: {describe_exit(done.returncode)}")
    try:
        answer = json.loads(text)
    except ValueError:  # its disk is full, or it was killed while it wrote
        reason = f"what was found is not whole: {describe_exit(done.returncode)}"
        raise AppError(f"{plan.name} cannot be loaded: {reason}") from None
    if "plan" not in answer:
        raise AppError(answer["error"], answer["traceback"])
    fresh = Plan.from_json(answer["plan"])
    _warn_of_settings(plan, fresh)
    return fresh


def describe_exit(code: int) -> str:
    """How a process ended that should have said something before."""
    if code < 0:
        return f"its process was killed by signal {-code}"
    return f"its process ended with exit code {code}"


async def _kill(process: trio.Process) -> None:  # noqa: ASYNC124  # Trio's signature
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _warn_of_settings(plan: Plan, fresh: Plan) -> None:
    before = plan.own_settings or Settings()
    now = fresh.own_settings or Settings()
    changed = [
        field.name
        for field in attrs.fields(Settings)
        if getattr(before, field.name) != getattr(now, field.name)
    ]
    if changed:
        logger.warning(
            "settings of %s have changed (%s): a restart takes them, a reload does not",
            plan.name,
            ", ".join(changed),
        )


def check_here(fd: int, lifeline: int) -> None:
    """Be that process: read the plan on stdin, and answer on ``fd``; die with who has started it.

    Args:
      fd: A file.
      lifeline: See `die_with`.
    """
    die_with(lifeline)
    plan = Plan.from_json(sys.stdin.buffer.read().decode())
    answer = _checked(plan)
    with open(fd, "w", encoding="utf-8") as answers:
        json.dump(answer, answers)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)  # whatever threads the app's modules have started


def _checked(plan: Plan) -> dict[str, str]:
    try:
        app = load_as_planned(plan)
        return {"plan": plan_of(app, plan.settings).to_json()}
    except TrioserverError as exc:
        return {"error": str(exc), "traceback": ""}
    except BaseException as exc:  # noqa: ASYNC103, BLE001  # its modules may raise anything
        reason = f"{plan.name} cannot be loaded: {summary_of(exc)}"
        return {"error": reason, "traceback": traceback_of(exc)}  # noqa: ASYNC104  # as above
