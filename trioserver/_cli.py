"""The command line: arguments to an app and its settings, and every refusal to one line.

Exit codes: 0 clean, 1 something was cut while stopping or the server failed, 2 the start was wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import trioserver
from trioserver._app import App, load_app
from trioserver._errors import TrioserverError
from trioserver._importing import nearest
from trioserver._layers import DEFAULT, FIELDS, Layers, flag
from trioserver._settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

WRONG = 2
"""The exit code of a start that cannot be."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m trioserver`` with ``argv``; the exit code."""
    parser = make_parser()
    arguments, unknown = parser.parse_known_args(argv)
    app = load(arguments.app)
    if app is None:
        return WRONG
    settings = layer(app, app.settings, arguments, unknown)
    if settings is None:
        return WRONG
    if arguments.check:
        return 0
    from trioserver._running import run_app  # noqa: PLC0415  # --check and --help need no Trio

    return run_app(app, settings)


def make_parser(*, takes_app: bool = True) -> argparse.ArgumentParser:
    """A parser with a flag for every setting."""
    parser = _Parser(
        prog="trioserver",
        description="Serve an app: a TCP server whose slow work runs in task worker processes.",
        epilog="Settings can also stand in the file, and in the environment as TRIOSERVER_<NAME>; "
        "flags are above these, these above the file, and the file above the app's own.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    if takes_app:
        parser.add_argument("app", metavar="APP", help="module or module:attr")
    parser.add_argument("--version", action="version", version=trioserver.__version__)
    parser.add_argument(
        "--check",
        action="store_true",
        default=False,
        help="load and check everything, show every setting and where it is from, start nothing",
    )
    parser.add_argument("--config", metavar="FILE", default=None, help="settings as TOML")
    group = parser.add_argument_group("settings")
    for name, field in FIELDS.items():
        doc, unit = field.metadata["doc"], field.metadata["unit"]
        is_list = isinstance(field.default, tuple)
        default = ", ".join(field.default or ()) if is_list else field.default
        more = " May be repeated." if is_list else ""
        group.add_argument(
            flag(name),
            dest=name,
            metavar=unit.upper() or "TEXT",
            action="append",
            help=f"{doc}{more} [{default}]".replace("%", "%%"),
        )
    return parser


def load(target: object) -> App | None:
    """Load the app, or say on stderr why not."""
    try:
        return load_app(target)
    except TrioserverError as exc:
        refuse(str(exc))
    except BaseException as exc:  # its module may raise anything
        if isinstance(exc, SystemExit) and exc.code == 0:
            raise  # a signal during the import
        tb = _users_part(exc.__traceback__)
        traceback.print_exception(type(exc), exc, tb)
        refuse(f"{target} cannot be imported: {type(exc).__name__}: {exc}")
    return None


def layer(
    app: App, own: Settings | None, arguments: argparse.Namespace, unknown: Sequence[str]
) -> Settings | None:
    """Merge the settings of all layers, or say on stderr what is wrong; print them for --check."""
    layers = Layers()
    layers.add_code(own, f"settings of {app.name}")
    if arguments.config is not None:
        layers.add_toml(arguments.config)
    layers.add_environment(os.environ)
    layers.add_flags({name: texts for name, texts in vars(arguments).items() if name in FIELDS})
    for text in unknown:
        close = nearest(text.partition("=")[0], [flag(name) for name in FIELDS])
        layers.refuse(f"unknown argument {text!r}{close if text.startswith('-') else ''}")
    try:
        settings, origins = layers.merge()
        app.check(settings)
    except (SettingsError, TrioserverError) as exc:
        refuse(str(exc))
        return None
    if arguments.check:
        _show(app, settings, origins)
    return settings


def refuse(reason: str) -> None:
    """Say on stderr why there is no start."""
    for line in reason.splitlines():
        print(f"trioserver: error: {line}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        refuse(message)
        raise SystemExit(WRONG)


def _show(app: App, settings: Settings, origins: dict[str, str]) -> None:
    print(f"app = {app.name}")
    for name in FIELDS:
        value = getattr(settings, name)
        shown = list(value) if isinstance(value, tuple) else value
        origin = origins[name] if origins[name] == DEFAULT else f"from {origins[name]}"
        print(f"{name} = {shown!r}  ({origin})")


def _users_part(tb: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is neither ours nor the import system's."""
    ours = os.path.dirname(__file__)  # compared with the text in frames
    while tb is not None:
        name = tb.tb_frame.f_code.co_filename
        if not name.startswith((ours, "<frozen importlib")) and "importlib" not in name:
            return tb
        tb = tb.tb_next
    return tb
