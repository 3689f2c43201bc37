"""``python -m trioserver.ctl``: ask a running server, and tell it what to do.

It talks to the control socket of a server (`Settings.control`), on the same machine and as the same
user, or as root. Exit codes: 0 done, 1 the server has refused, or not answered in time, 2 usage, or
no server is there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from trioserver._ctl_text import text_of
from trioserver._logs import escaped

if TYPE_CHECKING:
    from collections.abc import Sequence

_REFUSED: Final = 1
_WRONG: Final = 2
_INTERRUPTED: Final = 130
"""As shells have it for a Ctrl-C."""
_TIMEOUT: Final = 10.0
_MAX_TIMEOUT: Final = 1e6
_RECEIVE_SIZE: Final = 64 * 1024
_EXAMPLES: Final = """\
examples:
  python -m trioserver.ctl /run/shop/control status
  python -m trioserver.ctl /run/shop/control tasks --json
  python -m trioserver.ctl /run/shop/control stack 4711
  python -m trioserver.ctl /run/shop/control cancel 4711
  python -m trioserver.ctl /run/shop/control scale 8
  python -m trioserver.ctl /run/shop/control reload --task-workers-only

exit codes:
  0 done; 1 the server has refused, or not answered in time; 2 usage, or no server is there
"""


class _Refused(Exception):
    """What the server did not do, and why."""


class _NoServer(Exception):
    """Why there is nobody to ask."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        return _run(_make_parser().parse_args(argv))
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # of stdout: whoever read it has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: argparse.Namespace) -> int:
    options = vars(arguments)
    path, timeout, as_json = options.pop("path"), options.pop("timeout"), options.pop("json")
    try:
        answer = _ask(path.removeprefix("unix:"), options, timeout)
    except _Refused as exc:
        _complain(str(exc))
        return _REFUSED
    except _NoServer as exc:
        _complain(f"{path}: {exc}")
        return _WRONG
    if as_json:
        print(json.dumps(answer, indent=2), flush=True)
    if not answer.get("ok"):
        _complain(str(answer.get("error")))
        return _REFUSED
    if not as_json:
        lines = text_of(options["command"], answer).split("\n")
        print("\n".join(map(escaped, lines)), flush=True)
    return 0


def _ask(path: str, request: dict[str, Any], timeout: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout
    received = bytearray()
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.settimeout(timeout)
            sock.connect(path)
        except OSError as exc:
            raise _NoServer(f"cannot connect: {(exc.strerror or str(exc)).lower()}") from exc
        try:
            # Who is turned away cannot ask, but hears why.
            with suppress(BrokenPipeError):
                sock.sendall(json.dumps(request).encode() + b"\n")
            while b"\n" not in received[-1:]:
                sock.settimeout(max(deadline - time.monotonic(), 0.001))
                data = sock.recv(_RECEIVE_SIZE)
                if not data:
                    break
                received += data
        except TimeoutError as exc:
            raise _Refused(f"the server has not answered within {timeout:g} s") from exc
        except ConnectionError:
            received.clear()
    try:
        answer = json.loads(received)
    except ValueError as exc:
        raise _Refused("the server has closed the connection without an answer") from exc
    if not isinstance(answer, dict):
        raise _Refused("what answers there is no server of trioserver's")
    return answer


def _complain(text: str) -> None:
    sys.stderr.write(f"trioserver.ctl: error: {escaped(text)}\n")


class _Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        _complain(message)
        raise SystemExit(_WRONG)


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m trioserver.ctl",
        description="Ask a running server, and tell it what to do, by its control socket.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "path", metavar="PATH", help="the server's control socket, as --control has it"
    )
    parser.set_defaults(json=False, timeout=_TIMEOUT)
    # Before the command or behind it; a default here would undo what stands before.
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    for takes_both in (parser, common):
        takes_both.add_argument(
            "--json",
            action="store_true",
            default=argparse.SUPPRESS,
            help="print the answer as JSON",
        )
        takes_both.add_argument(
            "--timeout",
            metavar="SECONDS",
            type=_seconds,
            default=argparse.SUPPRESS,
            help=f"how long to wait for the answer [{_TIMEOUT:g}]",
        )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, parents=[common], help=text, description=text, allow_abbrev=False
        )

    add("status", "how the server is, in numbers")
    add("workers", "its processes")
    add("tasks", "which tasks run, where, and since when")
    add("reload", "have fresh processes with the code of now take over").add_argument(
        "--task-workers-only", action="store_true", help="leave the event workers as they are"
    )
    add("stop", "stop gracefully, as SIGTERM does")
    add("cancel", "end a task, queued or running").add_argument("id", metavar="ID", type=int)
    add("scale", "have so many task workers").add_argument("task_worker_num", metavar="N", type=int)
    add("stack", "the Python stack of a running task").add_argument("id", metavar="ID", type=int)
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _MAX_TIMEOUT:
        raise argparse.ArgumentTypeError(f"must be a number above 0: {text!r}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
