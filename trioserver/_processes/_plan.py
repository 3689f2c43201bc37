"""`Plan`: what a process knows of an app that it does not import, and how another one loads it."""

from __future__ import annotations

import json
import multiprocessing.process
import multiprocessing.spawn
import os
import site
import sys
import sysconfig
from typing import Any, Self

import attrs

import trioserver
from trioserver._app import App, load_app
from trioserver._settings import Settings


@attrs.frozen(kw_only=True)
class Plan:
    """An app that was loaded and checked elsewhere, and the settings that it is to run with."""

    name: str
    """What the log calls it."""
    spec: str | None
    """Where a process imports it from, ``module:qualname``; None if none can."""
    callbacks: tuple[str, ...]
    """The names of those that it has."""
    has_async_task: bool
    """Whether ``on_task`` is a coroutine function."""
    settings: Settings
    """Those in force."""
    own_settings: Settings | None
    """Those that the app carries."""
    files: tuple[str, ...]
    """The paths of its own modules."""
    main: str | None
    """The script, or the module under ``python -m``, that a process must run as ``__mp_main__``,
    because the app lives in it."""
    path: tuple[str, ...]
    """``sys.path``."""

    def to_json(self) -> str:
        """As text."""
        return json.dumps(attrs.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From text that `to_json` made."""
        values: dict[str, Any] = json.loads(text)
        for name in ("callbacks", "files", "path"):
            values[name] = tuple(values[name])
        for name in ("settings", "own_settings"):
            if values[name] is not None:
                values[name] = Settings(**values[name])
        return cls(**values)


def plan_of(app: App, settings: Settings) -> Plan:
    """The plan of an app that is loaded here."""
    main = None
    if app.spec is not None and app.spec.partition(":")[0] in {"__main__", "__mp_main__"}:
        # As multiprocessing finds it for the processes that it starts.
        found = multiprocessing.spawn.get_preparation_data("")
        main = found.get("init_main_from_path") or found.get("init_main_from_name")
    return Plan(
        name=app.name,
        spec=app.spec,
        callbacks=app.callbacks,
        has_async_task=app.has_async_task,
        settings=settings,
        own_settings=app.settings,
        files=own_files(),
        main=main,
        path=tuple(sys.path),
    )


def load_as_planned(plan: Plan) -> App:
    """Import the app in this process, which has nothing of it yet, and check it.

    Raises:
      AppError: if it is no app, or lacks what the settings ask for.
      BaseException: whatever its modules raise, untouched.
    """
    assert plan.spec is not None, "whoever makes a plan for another process has seen to it"
    sys.path[:] = plan.path
    if plan.main is not None:
        _run_main(plan.main)
    app = load_app(plan.spec)
    app.check(plan.settings)
    return app


def _run_main(main: str) -> None:
    """Run the script as multiprocessing does it in the processes that it starts."""
    key = "init_main_from_path" if os.path.isabs(main) else "init_main_from_name"
    process = multiprocessing.process.current_process()
    # A script that serves without asking for its name is refused by this mark.
    process._inheriting = True  # type: ignore[attr-defined]  # noqa: SLF001  # multiprocessing's
    try:
        multiprocessing.spawn.prepare({key: main})
    finally:
        del process._inheriting  # type: ignore[attr-defined]  # noqa: SLF001  # as above


def own_files() -> tuple[str, ...]:
    """The files of modules that are neither Python's, nor installed, nor ours."""
    paths = sysconfig.get_paths()
    foreign = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    foreign += [*site.getsitepackages(), site.getusersitepackages()]
    foreign.append(os.path.dirname(trioserver.__file__))
    prefixes = tuple(os.path.join(os.path.realpath(directory), "") for directory in foreign)
    found = set()
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if isinstance(name, str) and os.path.isfile(name):
            path = os.path.realpath(name)
            if not path.startswith(prefixes):
                found.add(path)
    return tuple(sorted(found))
