"""What an app may be, and what is said of one that is wrong."""

from __future__ import annotations

import functools
import re
import types
from typing import Any

import attrs
import pytest

from trioserver import AppError, EofFraming, FixedFraming, RawFraming, Settings
from trioserver._app import App, load_app


async def takes_nothing() -> None:
    """No argument."""


async def takes_one(_first: object) -> None:
    """One argument."""


async def takes_two(_first: object, _second: object) -> None:
    """Two arguments."""


async def takes_three(_first: object, _second: object, _third: object) -> None:
    """Three arguments."""


def plain_one(_first: object) -> None:
    """One argument, not async."""


async def async_yields(_first: object) -> Any:
    """An async generator."""
    yield


def yields(_first: object) -> Any:
    """A generator."""
    yield


class Shop:
    """An app with everything that most have."""

    settings = Settings(task_worker_num=1)
    framing = EofFraming(b"\n")

    async def on_receive(self, stream: object, data: bytes) -> None:
        """Nothing."""

    def on_task(self, task: object) -> None:
        """Nothing."""

    async def on_finish(self, completion: object) -> None:
        """Nothing."""


def app_with(**members: object) -> object:
    """An object with ``on_receive`` unless ``members`` say otherwise."""
    return types.SimpleNamespace(**({"on_receive": takes_two} | members))


def assert_refused(target: object, *problems: str) -> None:
    name = f"{type(target).__module__}:{type(target).__qualname__}"
    text = "\n".join(f"{name}: {problem}" for problem in problems)
    with pytest.raises(AppError, match=rf"\A{re.escape(text)}\Z"):
        load_app(target)


def test_a_class_is_instantiated() -> None:
    """Its callbacks are bound methods of one object, and tasks find it by name."""
    app = load_app(Shop)

    assert app.name == app.spec == f"{__name__}:Shop"
    assert app.settings is Shop.settings
    assert app.framing is Shop.framing
    assert isinstance(app.on_receive, types.MethodType)
    assert isinstance(app.on_task, types.MethodType)
    assert app.on_receive.__self__ is app.on_task.__self__
    assert app.on_connect is None
    assert app.callbacks == ("on_receive", "on_task", "on_finish")


def test_a_name_is_loaded() -> None:
    """``module:attr``."""
    assert load_app(f"{__name__}:Shop").spec == f"{__name__}:Shop"


def test_an_object_is_taken_as_it_is() -> None:
    """And need not be importable by name, as long as no task asks for it."""
    shop = Shop()
    app = load_app(shop)

    assert isinstance(app.on_receive, types.MethodType)
    assert app.on_receive.__self__ is shop
    assert app.spec is None
    assert app.name == f"{__name__}:Shop"


def test_a_module_is_an_app() -> None:
    """With functions at its top level."""
    module = types.ModuleType("shop")
    vars(module)["on_receive"] = takes_two
    app = load_app(module)

    assert app.spec == "shop"
    assert app.on_receive is takes_two


def test_it_has_raw_framing_unless_it_says() -> None:
    """And no settings."""
    app = load_app(app_with())

    assert app.framing == RawFraming()
    assert app.settings is None


def test_it_is_frozen() -> None:
    """What was checked stays so."""
    app = load_app(Shop)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        app.on_receive = None  # type: ignore[misc]  # that is the test


class CallsAsync:
    """A callable object."""

    async def __call__(self, *_args: object) -> None:
        """Any arguments."""


class CallsPlain:
    """A callable object that is not async."""

    def __call__(self, *_args: object) -> None:
        """Any arguments."""


class ManyKinds:
    """Callbacks of all kinds that are right."""

    @staticmethod
    async def on_receive(stream: object, data: bytes) -> None:
        """Nothing."""

    @classmethod
    async def on_connect(cls, stream: object) -> None:
        """Nothing."""

    on_close = CallsAsync()
    on_finish = staticmethod(functools.partial(takes_two, None))
    on_progress = staticmethod(functools.partial(CallsAsync()))
    on_task = CallsPlain()
    on_task_worker_start = print
    on_task_worker_stop = staticmethod(functools.partial(plain_one))

    async def on_worker_start(self, server: object, extra: int = 0) -> None:
        """More arguments, with a default."""


def test_every_kind_of_callable_will_do() -> None:
    """Static and class methods, partials, callable objects, built-in functions."""
    app = load_app(ManyKinds)

    assert set(app.callbacks) == {name for name in dir(ManyKinds) if name.startswith("on_")}


def test_a_signature_that_nobody_knows_is_trusted() -> None:
    """As some functions written in C have it."""
    assert load_app(app_with(on_task=min)).on_task is min


def test_every_callback_has_its_place() -> None:
    """One field each, filled from the attribute of its name."""
    members = {
        "on_worker_start": takes_one,
        "on_worker_stop": takes_one,
        "on_connect": takes_one,
        "on_close": takes_one,
        "on_finish": takes_one,
        "on_progress": takes_two,
        "on_message": takes_three,
        "on_task": plain_one,
        "on_task_worker_start": plain_one,
        "on_task_worker_stop": plain_one,
    }
    app = load_app(app_with(**members))

    assert {name: getattr(app, name) for name in members} == members
    assert load_app(types.SimpleNamespace(on_stream=takes_one)).on_stream is takes_one


@pytest.mark.parametrize(
    ("name", "callback", "problem"),
    [
        ("on_recieve", takes_two, "unknown callback on_recieve (did you mean 'on_receive'?)"),
        ("on_zebra", takes_two, "unknown callback on_zebra"),
        ("on_close", None, "on_close must be callable: None"),
        (
            "on_connect",
            plain_one,
            "on_connect must be a coroutine function, 'async def on_connect(stream)'",
        ),
        (
            "on_finish",
            CallsPlain(),
            "on_finish must be a coroutine function, 'async def on_finish(completion)'",
        ),
        (
            "on_task_worker_start",
            functools.partial(takes_one),
            "on_task_worker_start must be a plain function, 'def on_task_worker_start(worker_id)'",
        ),
        ("on_close", async_yields, "on_close must not yield: its calls would run nothing"),
        ("on_task", yields, "on_task must not yield: its calls would run nothing"),
        (
            "on_receive",
            takes_one,
            "on_receive must take (stream, data), but takes (_first: 'object') -> 'None'",
        ),
        ("on_close", takes_nothing, "on_close must take (stream), but takes () -> 'None'"),
        ("on_stream", takes_one, "on_receive and on_stream exclude each other"),
    ],
)
def test_a_wrong_callback_is_named(name: str, callback: object, problem: str) -> None:
    """With what it has to be."""
    assert_refused(app_with(**{name: callback}), problem)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("settings", {"backlog": 1}, "settings must be a trioserver.Settings: {'backlog': 1}"),
        ("settings", Settings, f"settings must be a trioserver.Settings: {Settings!r}"),
        ("framing", RawFraming, f"framing must be an object with encode and decoder: {RawFraming}"),
        ("framing", b"\n", "framing must be an object with encode and decoder: b'\\n'"),
    ],
)
def test_wrong_settings_and_framing_are_named(name: str, value: object, problem: str) -> None:
    """With the value."""
    assert_refused(app_with(**{name: value}), problem)


def test_a_framing_has_methods() -> None:
    """Attributes of their names are not enough."""
    framing = types.SimpleNamespace(encode=1, decoder=2)
    assert_refused(
        app_with(framing=framing),
        f"framing must be an object with encode and decoder: {framing!r}",
    )


def test_an_app_receives() -> None:
    """Frames, or a stream."""
    assert_refused(types.SimpleNamespace(), "on_receive is required (or on_stream)")


def test_everything_that_is_wrong_is_said_at_once() -> None:
    """A misspelt ``on_receive`` is one mistake and not two."""
    assert_refused(
        types.SimpleNamespace(on_recieve=takes_two, on_close=5, settings=1),
        "on_close must be callable: 5",
        "unknown callback on_recieve (did you mean 'on_receive'?)",
        "settings must be a trioserver.Settings: 1",
    )


def test_what_an_apps_class_raises_comes_out_untouched() -> None:
    """It is the app's own business."""

    class Failing:
        def __init__(self) -> None:
            raise LookupError("mine")

    with pytest.raises(LookupError, match=r"^mine$"):
        load_app(Failing)


TASKS = Settings(task_worker_num=2)


def assert_unfit(app: App, settings: Settings, message: str) -> None:
    with pytest.raises(AppError, match=f"^{re.escape(message)}$"):
        app.check(settings)


def test_tasks_need_their_callbacks() -> None:
    """Without task workers, they may be missing."""
    app = load_app(app_with())
    app.check(Settings())

    name = "types:SimpleNamespace"
    assert_unfit(app, TASKS, f"task_worker_num is 2, but {name} has no on_task and no on_finish")
    assert_unfit(
        load_app(app_with(on_task=plain_one)),
        TASKS,
        f"task_worker_num is 2, but {name} has no on_finish",
    )
    load_app(Shop).check(TASKS)


def test_tasks_need_an_app_that_another_process_can_import() -> None:
    """Unless they run in this one."""
    app = load_app(Shop())
    app.check(TASKS, needs_import=False)

    assert_unfit(
        app,
        TASKS,
        f"{__name__}:Shop must be importable by name in a task worker (module:qualname), but it "
        f"has no name in module {__name__!r}, where its class is: give 'module:attr' in its place",
    )


def test_a_framing_must_be_able_to_keep_to_the_limit() -> None:
    """Otherwise every connection would fail."""
    app = load_app(app_with(framing=FixedFraming(10)))
    app.check(Settings(package_max_length=10))

    assert_unfit(
        app,
        Settings(package_max_length=9),
        "framing cannot work with package_max_length 9: FixedFraming(size=10): "
        "size 10 exceeds max_length 9",
    )
