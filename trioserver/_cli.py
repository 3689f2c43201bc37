"""The command line: arguments to an app and its settings, and every refusal to one line.

Exit codes: 0 clean, 1 something was cut while stopping or the server failed, 2 the start was wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import trioserver
from trioserver._app import App, load_app
from trioserver._deaths import how_it_ended
from trioserver._errors import AppError, TrioserverError, summary_of
from trioserver._importing import is_machinery, nearest, refuse_in_spawned_child
from trioserver._inheritance import inherited, receive_inheritance
from trioserver._layers import DEFAULT, FIELDS, Layers, flag
from trioserver._processes._forking import ChildDiedError, ask_child
from trioserver._refusals import WRONG, print_traceback, refuse
from trioserver._settings import Settings, SettingsError
from trioserver._signals import StoppedAtStart, signals_at_rest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from trioserver._processes._plan import Plan


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``python -m trioserver`` with ``argv``; the exit code."""
    try:
        arguments, unknown = make_parser().parse_known_args(argv)
    except SystemExit as exc:  # after --help, --version, or a refusal
        return WRONG if exc.code else 0
    if not arguments.check and not _is_surely_one_process(arguments):
        try:
            text = ask_child(lambda: _make_plan(arguments, unknown), _import_server)
        except ChildDiedError as exc:
            how = how_it_ended(exc.code)
            refuse(f"{arguments.app} cannot be loaded: it ends the process with {how}")
            return WRONG
        if text is None:
            return WRONG
        from trioserver._processes._plan import Plan  # noqa: PLC0415  # see `_import_server`

        plan = Plan.from_json(text)
        if plan.settings.worker_num > 1:
            return _manage(plan)
    loaded = _load_and_layer(arguments, unknown)
    if loaded is None:
        return WRONG
    return 0 if arguments.check else _serve(*loaded)


def _load_and_layer(
    arguments: argparse.Namespace, unknown: Sequence[str]
) -> tuple[App, Settings] | None:
    """The app and its settings, or say on stderr what is wrong with either."""
    app = None
    # Behind a misspelt flag stands its value, which could be taken for the app.
    if not any(text.startswith("-") for text in unknown):
        app = load(arguments.app)
        if app is None:
            return None
    settings = layer(app, None if app is None else app.settings, arguments, unknown)
    return None if app is None or settings is None else (app, settings)


def _is_surely_one_process(arguments: argparse.Namespace) -> bool:
    """Whether there is no manager, whatever the app's own settings say.

    A manager never imports the app, so that a reload runs new code.
    """
    before = inherited()
    if before is not None:
        return True  # what executes itself anew is one process
    layers = Layers()
    _add_from_outside(layers, arguments)
    return layers.known("worker_num") == 1


def _make_plan(arguments: argparse.Namespace, unknown: Sequence[str]) -> str | None:
    """What there is to know of the app, in a process that ends then."""
    loaded = _load_and_layer(arguments, unknown)
    if loaded is None:
        return None
    from trioserver._processes._plan import plan_of  # noqa: PLC0415  # see `_import_server`

    return plan_of(*loaded).to_json()


def _import_server() -> None:
    """Import what a server needs, which takes its time; --check and --help do without."""
    import trioserver._running  # noqa: F401, PLC0415


def run(
    app: object, settings: Settings | None = None, *, argv: Sequence[str] | None = None
) -> None:
    """``python -m trioserver`` in code; returns after a clean stop.

    Signals stop it as on the command line, so call it in the main thread; the environment and the
    command line's flags count as well. A script must call it under
    ``if __name__ == "__main__":``, since each task worker runs the script again. A reload of a
    server that is one process runs it again, too, in the same process and from its beginning; the
    settings are those of the start then.

    Args:
      app: A class, an object or a module with ``on_*`` attributes, or ``"module:attr"``.
      settings: Stand in for those that the app carries.
      argv: Flags; those of the process unless given.

    Raises:
      SystemExit: with 1 if something was cut while stopping or the server failed, with 2 if the
        start was wrong; stderr says why.
    """
    with signals_at_rest():
        receive_inheritance()
        code = _run(app, settings, argv)
    if code:
        raise SystemExit(code)


def _run(app: object, settings: Settings | None, argv: Sequence[str] | None) -> int:
    try:
        refuse_in_spawned_child()
    except AppError as exc:
        refuse(str(exc))
        return WRONG
    arguments, unknown = make_parser(takes_app=False).parse_known_args(argv)
    try:
        loaded = load(app)
        if loaded is None:
            return WRONG
        own = loaded.settings if settings is None else settings
        merged = layer(loaded, own, arguments, unknown)
        if merged is None:
            return WRONG
        if arguments.check:
            return 0
        return _serve(loaded, merged) if merged.worker_num == 1 else _serve_by_many(loaded, merged)
    except StoppedAtStart:
        return 0


def _serve(app: App, settings: Settings) -> int:
    from trioserver._running import run_app  # noqa: PLC0415  # --check and --help need no Trio

    return run_app(app, settings)


def _serve_by_many(app: App, settings: Settings) -> int:
    """Serve an app that is loaded here already, in processes that load it themselves."""
    if app.spec is None:
        refuse(
            f"{app.name} must be importable by name in an event worker (module:qualname), but "
            f"{app.why_no_spec}"
        )
        return WRONG
    from trioserver._processes._plan import plan_of  # noqa: PLC0415  # see `_import_server`

    return _manage(plan_of(app, settings))


def _manage(plan: Plan) -> int:
    from trioserver._processes._running import run_manager  # noqa: PLC0415  # as above

    return run_manager(plan)


def make_parser(*, takes_app: bool = True) -> argparse.ArgumentParser:
    """A parser with a flag for every setting."""
    program = os.path.basename(sys.argv[0])
    if takes_app:
        program = "python -m trioserver" if program == "__main__.py" else "trioserver"
    parser = _Parser(
        prog=program,
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
        text = f"{doc}{more} [{default}]".replace("%", "%%")
        if isinstance(field.default, bool):
            group.add_argument(flag(name), dest=name, action="append_const", const="on", help=text)
        else:
            group.add_argument(
                flag(name), dest=name, metavar=unit.upper(), action="append", help=text
            )
    return parser


def load(target: object) -> App | None:
    """Load the app, or say on stderr why not."""
    try:
        return load_app(target)
    except StoppedAtStart:
        raise
    except SettingsError as exc:
        where = _place(exc.__traceback__)
        refuse("\n".join(f"{where}: {problem}" for _, problem in exc.problems))
    except TrioserverError as exc:
        refuse(str(exc))
    except BaseException as exc:  # noqa: BLE001  # its module may raise anything
        print_traceback(exc)
        refuse(f"{target} cannot be loaded: {summary_of(exc)}".partition("\n")[0])
    return None


def layer(
    app: App | None, own: Settings | None, arguments: argparse.Namespace, unknown: Sequence[str]
) -> Settings | None:
    """Merge the settings of all layers, or say on stderr what is wrong; print them for --check."""
    layers = Layers()
    before = inherited()
    if before is not None:
        layers.add_inherited(before.settings)
    else:
        if app is not None:
            layers.add_code(own, f"settings of {app.name}")
        _add_from_outside(layers, arguments)
    flags = [text for text in unknown if text.startswith("-")]
    for text in flags or unknown:  # what stands behind a misspelt flag is its value
        close = nearest(text.partition("=")[0], [flag(name) for name in FIELDS])
        layers.refuse(f"unknown argument {text!r}{close if flags else ''}")
    try:
        settings, origins = layers.merge()
        if app is not None:
            app.check(settings)
    except (SettingsError, TrioserverError) as exc:
        refuse(str(exc))
        return None
    if arguments.check and app is not None:
        _show(app, settings, origins)
    return settings


def _add_from_outside(layers: Layers, arguments: argparse.Namespace) -> None:
    if arguments.config is not None:
        layers.add_toml(arguments.config)
    layers.add_environment(os.environ)
    layers.add_flags({name: texts for name, texts in vars(arguments).items() if name in FIELDS})


class _Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        refuse(message)
        raise SystemExit(WRONG)


def _show(app: App, settings: Settings, origins: dict[str, str]) -> None:
    print(f"app = {app.name}")
    print(f"callbacks = {', '.join(app.callbacks)}")
    print(f"framing = {app.framing!r}")
    for name in FIELDS:
        value = getattr(settings, name)
        shown = list(value) if isinstance(value, tuple) else value
        origin = origins[name] if origins[name] == DEFAULT else f"from {origins[name]}"
        print(f"{name} = {shown!r}  ({origin})")


def _place(tb: TracebackType | None) -> str:
    """Where in the app it happened: the last line of its own."""
    place = "settings"
    while tb is not None:
        if not is_machinery(tb):
            place = f"{tb.tb_frame.f_code.co_filename}, line {tb.tb_lineno}"
        tb = tb.tb_next
    return place
