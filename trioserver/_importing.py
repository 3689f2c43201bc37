"""From ``module:attr`` to the object, in the server and in task workers alike.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import difflib
import importlib
import multiprocessing
import os
import sys

from trioserver._errors import AppError


def load_object(spec: str) -> object:
    """Import what ``module`` or ``module:qual.name`` stands for; the current directory counts.

    Raises:
      AppError: if there is no such module or attribute; the message has the nearest name.
      BaseException: whatever the module itself raises, untouched.
    """
    module_name, colon, qualname = spec.partition(":")
    if not module_name or (colon and not qualname):
        raise AppError(f"an app is named 'module' or 'module:attr', not {spec!r}")
    directory = os.getcwd()
    if directory not in sys.path and "" not in sys.path:
        sys.path.insert(0, directory)
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        missing = exc.name or ""
        if module_name == missing or module_name.startswith(missing + "."):
            raise AppError(f"no module named {missing!r} (for {spec!r})") from None
        raise  # it is there, and imports another one that is not
    where = f"module {module_name!r}"
    for name in filter(None, qualname.split(".")):
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


def nearest(name: str, names: list[str]) -> str:
    """`` (did you mean …?)`` with that one of ``names`` which is most like ``name``, if any is."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def refuse_in_spawned_child() -> None:
    """Refuse to serve in a process that multiprocessing has started, and that re-runs the script.

    Raises:
      AppError: if this is one.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise AppError(UNGUARDED)


UNGUARDED = (
    "the script is run again in every task worker: put what starts the server under "
    "if __name__ == '__main__':"
)
