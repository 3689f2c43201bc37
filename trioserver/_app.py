"""From whatever carries ``on_*`` attributes to one frozen, checked `App`.

Nothing downstream asks an app for an attribute again.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import attrs

from trioserver._errors import AppError
from trioserver._importing import instantiate, is_any, is_async, load_object, nearest, spec_of
from trioserver._net._framing import Framing, RawFraming
from trioserver._settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    AsyncCallback = Callable[..., Any]

# Name of the callback -> what it is called with, and whether it must be a coroutine function (None:
# it may be either).
_CALLBACKS: Final[dict[str, tuple[tuple[str, ...], bool | None]]] = {
    "on_worker_start": (("server",), True),
    "on_worker_stop": (("server",), True),
    "on_connect": (("stream",), True),
    "on_receive": (("stream", "data"), True),
    "on_close": (("stream",), True),
    "on_stream": (("stream",), True),
    "on_task": (("task",), None),
    "on_finish": (("completion",), True),
    "on_progress": (("task_id", "value"), True),
    "on_message": (("server", "source", "message"), True),
    "on_task_worker_start": (("worker_id",), False),
    "on_task_worker_stop": (("worker_id",), False),
}


@attrs.frozen(kw_only=True)
class App:
    """An app, checked: callables where the app has them, None where it does not."""

    name: str
    """What the log calls it."""
    spec: str | None
    """Where a task worker imports it from, ``module:qualname``; None if it cannot."""
    why_no_spec: str = ""
    """Why it cannot."""
    settings: Settings | None
    framing: Framing
    on_worker_start: AsyncCallback | None = None
    on_worker_stop: AsyncCallback | None = None
    on_connect: AsyncCallback | None = None
    on_receive: AsyncCallback | None = None
    on_close: AsyncCallback | None = None
    on_stream: AsyncCallback | None = None
    on_task: Callable[..., Any] | None = None
    on_finish: AsyncCallback | None = None
    on_progress: AsyncCallback | None = None
    on_message: AsyncCallback | None = None
    on_task_worker_start: Callable[[int], object] | None = None
    on_task_worker_stop: Callable[[int], object] | None = None

    @property
    def callbacks(self) -> tuple[str, ...]:
        """The names of those that it has."""
        return tuple(name for name in _CALLBACKS if getattr(self, name) is not None)

    @property
    def has_async_task(self) -> bool:
        """Whether ``on_task`` is a coroutine function."""
        return is_async(self.on_task)

    def check(self, settings: Settings, *, needs_import: bool = True) -> None:
        """See whether the app has what ``settings`` ask for.

        Args:
          settings: Those in force.
          needs_import: Whether tasks run in other processes.

        Raises:
          AppError: if it has not.
        """
        length = settings.package_max_length
        try:
            self.framing.decoder(length)
        except Exception as exc:  # it may be the user's own
            raise AppError(
                f"framing cannot work with package_max_length {length}: {self.framing!r}: {exc}"
            ) from exc
        if not settings.task_worker_num:
            return
        missing = [name for name in ("on_task", "on_finish") if getattr(self, name) is None]
        if missing:
            raise AppError(
                f"task_worker_num is {settings.task_worker_num}, but {self.name} has no "
                + " and no ".join(missing)
            )
        if self.spec is None and needs_import:
            raise AppError(
                f"{self.name} must be importable by name in a task worker (module:qualname), but "
                f"{self.why_no_spec}"
            )


def load_app(target: object, *, serves: bool = True) -> App:
    """Load and check an app.

    Args:
      target: ``"module"`` or ``"module:attr"``, or the module, class or object itself. A class is
        instantiated here, and once in each task worker.
      serves: Whether it must have a callback for what clients send.

    Raises:
      AppError: with everything that is wrong with it.
      BaseException: whatever its module or class raises, untouched.
    """
    found = load_object(target) if isinstance(target, str) else target
    spec, why_no_spec = None, ""
    try:
        spec = target if isinstance(target, str) else spec_of(found)
    except AppError as exc:
        why_no_spec = str(exc)
    name = spec or _describe(found)
    app = instantiate(found)
    problems: list[str] = []
    callbacks = _callbacks_of(app, problems)
    if "on_receive" in callbacks and "on_stream" in callbacks:
        problems.append("on_receive and on_stream exclude each other")
    elif serves and not problems and not callbacks.keys() & {"on_receive", "on_stream"}:
        problems.append("on_receive is required (or on_stream)")
    settings = getattr(app, "settings", None)
    if settings is not None and not isinstance(settings, Settings):
        problems.append(f"settings must be a trioserver.Settings: {settings!r}")
    framing = getattr(app, "framing", None)
    if framing is None:
        framing = RawFraming()
    elif isinstance(framing, type) or not _is_framing(framing):
        problems.append(f"framing must be an object with encode and decoder: {framing!r}")
    if problems:
        raise AppError("\n".join(f"{name}: {problem}" for problem in problems))
    return App(
        name=name,
        spec=spec,
        why_no_spec=why_no_spec,
        settings=settings,
        framing=framing,
        **callbacks,
    )


def _callbacks_of(app: object, problems: list[str]) -> dict[str, Callable[..., Any]]:
    callbacks = {}
    for name in dir(app):
        if not name.startswith("on_"):
            continue
        if name not in _CALLBACKS:
            problems.append(f"unknown callback {name}{nearest(name, list(_CALLBACKS))}")
            continue
        callback = getattr(app, name)
        problem = _problem(name, callback)
        if problem is None:
            callbacks[name] = callback
        else:
            problems.append(problem)
    return callbacks


def _problem(name: str, callback: object) -> str | None:
    arguments, must_be_async = _CALLBACKS[name]
    signature = f"{name}({', '.join(arguments)})"
    if not callable(callback):
        return f"{name} must be callable: {callback!r}"
    if is_any(inspect.isgeneratorfunction, callback) or is_any(
        inspect.isasyncgenfunction, callback
    ):
        return f"{name} must not yield: its calls would run nothing"
    if (
        must_be_async is not None
        and is_any(inspect.iscoroutinefunction, callback) is not must_be_async
    ):
        kind = "a coroutine function, 'async def" if must_be_async else "a plain function, 'def"
        return f"{name} must be {kind} {signature}'"
    try:
        takes = inspect.signature(callback)
    except ValueError:  # some that are written in C do not say
        return None
    try:
        takes.bind(*arguments)
    except TypeError:
        return f"{name} must take ({', '.join(arguments)}), but takes {takes}"
    return None


def _is_framing(framing: object) -> bool:
    return all(callable(getattr(framing, name, None)) for name in ("encode", "decoder"))


def _describe(found: object) -> str:
    kind = found if isinstance(found, type) else type(found)
    return f"{kind.__module__}:{kind.__qualname__}"
