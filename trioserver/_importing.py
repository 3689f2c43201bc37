"""From ``module:attr`` to the object, in the server and in task workers alike, and back.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import multiprocessing
import os
import sys
import types
from collections.abc import Callable  # noqa: TC003  # cheap, and needed to read signatures
from typing import Final

from trioserver._errors import AppError


def load_object(spec: str) -> object:
    """Import what ``module`` or ``module:qual.name`` stands for; the current directory counts.

    Raises:
      AppError: if there is no such module or attribute; the message has the nearest name.
      BaseException: whatever the module itself raises, untouched.
    """
    module_name, colon, qualname = spec.partition(":")
    names = qualname.split(".") if colon else []
    if not all([*module_name.split("."), *names]):
        raise AppError(f"an app is named 'module' or 'module:attr', not {spec!r}")
    try:
        directory = os.getcwd()
    except FileNotFoundError:  # it was removed; the app may be elsewhere
        directory = ""
    if directory and directory not in sys.path and "" not in sys.path:
        sys.path.insert(0, directory)
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        missing = exc.name or ""
        if module_name == missing or module_name.startswith(missing + "."):
            hint = f", nor a file: write {module_name[:-3]!r}" if missing.endswith(".py") else ""
            raise AppError(f"no module named {missing!r}{hint}") from None
        raise  # it is there, and imports another one that is not
    where = f"module {module_name!r}"
    for name in names:
        try:
            found = getattr(found, name)
        except AttributeError:
            raise AppError(
                f"{where} has no attribute {name!r}{nearest(name, dir(found))}"
            ) from None
        where = f"{name!r} of {where}"
    return found


def instantiate(found: object) -> object:
    """The app itself: a class is called, and everything else is one already."""
    return found() if isinstance(found, type) else found


def is_any(is_kind: Callable[[object], bool], callback: object) -> bool:
    """Whether ``callback``, or the ``__call__`` of the object that it is, is of a kind."""
    while isinstance(callback, functools.partial):
        callback = callback.func
    return is_kind(callback) or is_kind(type(callback).__call__)


def is_async(callback: object) -> bool:
    """Whether it is a coroutine function, or an object whose ``__call__`` is one."""
    return is_any(inspect.iscoroutinefunction, callback)


def spec_of(found: object) -> str:
    """Where another process can import ``found`` from: ``module`` or ``module:qualname``.

    Raises:
      AppError: if it cannot; the message says why.
    """
    if isinstance(found, types.ModuleType):
        module, spec = found, found.__name__
    else:
        kind = found if isinstance(found, type) else type(found)
        home = sys.modules.get(kind.__module__)
        if home is None:
            raise AppError(f"there is no module {kind.__module__!r}")
        if found is kind:
            qualname = kind.__qualname__
        else:
            names = [name for name, value in vars(home).items() if value is found]
            if not names:
                raise AppError(
                    f"it has no name in module {kind.__module__!r}, where its class is: "
                    "give 'module:attr' in its place"
                )
            qualname = names[0]
        if "<locals>" in qualname:
            raise AppError("it is made inside a function")
        module, spec = home, f"{home.__name__}:{qualname}"
        there: object = home
        for name in qualname.split("."):
            there = getattr(there, name, None)
        if there is not found:
            raise AppError(f"{spec} is something else")
    if module.__name__ == "__main__" and not _is_run_again(module):
        raise AppError("no other process can import this __main__")
    return spec


def _is_run_again(main: types.ModuleType) -> bool:
    """Whether multiprocessing runs the main module in the processes that it starts."""
    if main.__spec__ is not None:  # python -m; it leaves out package.__main__
        return main.__spec__.name.rpartition(".")[2] != "__main__"
    return os.path.isfile(getattr(main, "__file__", ""))  # which may be <stdin>


def nearest(name: str, names: list[str]) -> str:
    """`` (did you mean …?)`` with that one of ``names`` which is most like ``name``, if any is."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def refuse_in_spawned_child() -> None:
    """Refuse to serve in a process that multiprocessing has started, and that re-runs the script.

    A task worker ends here, at once and silently: its server says what is wrong, once for all.

    Raises:
      AppError: if this is one that somebody else has started.
    """
    child = multiprocessing.current_process()
    if not getattr(child, "_inheriting", False):
        return
    if child.name.startswith("trio-parallel worker process"):
        os._exit(UNGUARDED_EXIT)  # an exception would end as a traceback of whatever is around
    raise AppError(UNGUARDED)


UNGUARDED: Final = (
    "the script is run again in every task worker: put what starts the server under "
    "if __name__ == '__main__':"
)
UNGUARDED_EXIT: Final = 94
"""The exit code of a task worker in which the script tried to serve; no app's own, it is hoped."""


def own_traceback(tb: types.TracebackType | None) -> types.TracebackType | None:
    """The part of ``tb`` from the first frame on that is the user's; None if none is."""
    while tb is not None and is_machinery(tb):
        tb = tb.tb_next
    return tb


def is_machinery(tb: types.TracebackType) -> bool:
    """Whether a frame is ours, the import system's, or of a method that attrs wrote."""
    name = tb.tb_frame.f_code.co_filename
    return (
        name.startswith((_OURS, "<frozen importlib", "<attrs generated"))
        or name == importlib.__file__
    )


_OURS: Final = os.path.join(os.path.dirname(__file__), "")  # compared with the text in frames
