"""The command line where nothing is started: what it loads, shows and refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from modules import directory_of_modules

from trioserver import Settings, __version__
from trioserver._cli import main
from trioserver._layers import FIELDS, flag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]

SHOP = """\
from trioserver import EofFraming, Settings

class App:
    settings = Settings(bind="127.0.0.1:9504", task_worker_num=4)
    framing = EofFraming(b"\\n")

    async def on_receive(self, stream, data): ...
    def on_task(self, task): ...
    async def on_finish(self, completion): ...
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current directory with an app in ``shop.py``, and no settings in the environment."""
    (tmp_path / "shop.py").write_text(SHOP)
    for name in FIELDS:
        monkeypatch.delenv(f"TRIOSERVER_{name.upper()}", raising=False)
    monkeypatch.setattr("sys.argv", ["trioserver"])
    with directory_of_modules(tmp_path):
        yield tmp_path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command line here: exit code, stdout and stderr."""

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        return (code, *capfd.readouterr())

    return run


def refused(*problems: str) -> tuple[int, str, str]:
    return 2, "", "".join(f"trioserver: error: {problem}\n" for problem in problems)


def test_version(run: Run) -> None:
    """Alone, so that a script can read it."""
    assert run("--version") == (0, f"{__version__}\n", "")


def test_help_explains_every_setting(run: Run) -> None:
    """Its flag, its words, its unit and its default."""
    code, out, err = run("--help")
    text = " ".join(out.split())

    assert (code, err) == (0, "")
    for name, field in FIELDS.items():
        shown = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
        takes = "" if isinstance(field.default, bool) else f"{field.metadata['unit'].upper()} "
        assert f"{flag(name)} {takes}{field.metadata['doc']}" in text
        assert f"[{shown}]" in text


@pytest.mark.parametrize(
    ("program", "shown"),
    [("/x/trioserver/__main__.py", "python -m trioserver"), ("/x/bin/trioserver", "trioserver")],
)
def test_help_names_the_program_as_it_was_called(
    run: Run, monkeypatch: pytest.MonkeyPatch, program: str, shown: str
) -> None:
    """As a module or as a script."""
    monkeypatch.setattr("sys.argv", [program])

    assert run("--help")[1].startswith(f"usage: {shown} [-h] ")


def test_check_shows_what_would_run(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app, and every setting with its value and where it is from; it starts nothing."""
    (here / "server.toml").write_text("max_wait_time = 1\n")
    monkeypatch.setenv("TRIOSERVER_LOG_LEVEL", "debug")
    argv = ("shop:App", "--check", "--config", "server.toml", "--bind", "a:1", "--bind=b:2")

    code, out, err = run(*argv)

    assert (code, err) == (0, "")
    assert out == (
        "app = shop:App\n"
        "callbacks = on_receive, on_task, on_finish\n"
        "framing = EofFraming(terminator=b'\\n')\n"
        "bind = ['a:1', 'b:2']  (from --bind)\n"
        "worker_num = 1  (default)\n"
        "task_worker_num = 4  (from settings of shop:App)\n"
        "max_queued_tasks = 10000  (default)\n"
        "max_queued_bytes = 1073741824  (default)\n"
        "max_task_size = 67108864  (default)\n"
        "max_tasks_per_connection = 0  (default)\n"
        "task_timeout = inf  (default)\n"
        "task_concurrency = 16  (default)\n"
        "task_window = 0  (default)\n"
        "task_max_request = 0  (default)\n"
        "task_max_memory = 0  (default)\n"
        "max_request = 0  (default)\n"
        "worker_timeout = 30.0  (default)\n"
        "max_conn = 10000  (default)\n"
        "package_max_length = 2097152  (default)\n"
        "max_wait_time = 1.0  (from server.toml)\n"
        "backlog = 1024  (default)\n"
        "pid_file = ''  (default)\n"
        "control = ''  (default)\n"
        "reload = False  (default)\n"
        "log_level = 'debug'  (from TRIOSERVER_LOG_LEVEL)\n"
    )


def test_the_app_is_required(run: Run) -> None:
    """There is nothing else to serve."""
    assert run() == refused("the following arguments are required: APP")


def test_a_flag_needs_its_value(run: Run) -> None:
    """In argparse's words, in one line."""
    assert run("shop:App", "--backlog") == refused("argument --backlog: expected one argument")


@pytest.mark.parametrize(
    "argv",
    [
        ("shop:App", "--task-workers-num", "3"),
        ("--task-workers-num", "3", "shop:App"),
        ("shop:App", "--task-workers-num=3"),
    ],
    ids=" ".join,
)
def test_an_unknown_flag_is_one_problem(run: Run, argv: tuple[str, ...]) -> None:
    """Its value is taken neither for the app nor for a problem of its own."""
    text = next(text for text in argv if text.startswith("-"))

    assert run(*argv) == refused(f"unknown argument {text!r} (did you mean '--task-worker-num'?)")


def test_flags_have_no_abbreviations(run: Run) -> None:
    """What is short today may be ambiguous tomorrow."""
    assert run("shop:App", "--task-worker", "3") == refused(
        "unknown argument '--task-worker' (did you mean '--task-worker-num'?)"
    )


def test_there_is_one_app(run: Run) -> None:
    """A second one is refused."""
    assert run("shop:App", "shop:Other") == refused("unknown argument 'shop:Other'")


def test_problems_of_settings_are_said_together(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the file, the environment and the flags, wrong names and wrong values."""
    (here / "server.toml").write_text("backlog = 0\n")
    monkeypatch.setenv("TRIOSERVER_MAX_CONN", "many")

    assert run("shop:App", "--config=server.toml", "--worker-num=0", "--bakclog=1") == refused(
        "server.toml: backlog must be from 1 to 2147483647: 0",
        "TRIOSERVER_MAX_CONN: max_conn must be a whole number: 'many'",
        "--worker-num: worker_num must be from 1 to 1000: 0",
        "unknown argument '--bakclog=1' (did you mean '--backlog'?)",
    )


def test_a_missing_file(run: Run) -> None:
    """Is named."""
    assert run("shop:App", "--config", "none.toml") == refused(
        "cannot read none.toml: No such file or directory"
    )


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("shpo:App", "no module named 'shpo'"),
        ("shop:Ap", "module 'shop' has no attribute 'Ap' (did you mean 'App'?)"),
        ("shop.py", "no module named 'shop.py', nor a file: write 'shop'"),
        ("shop", "shop: on_receive is required (or on_stream)"),
    ],
)
def test_an_app_that_is_not_there(run: Run, target: str, problem: str) -> None:
    """Is named, with the nearest that is."""
    assert run(target, "--check") == refused(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "async def on_recieve(stream, data): ...",
            "app: unknown callback on_recieve (did you mean 'on_receive'?)",
        ),
        (
            "def on_receive(stream, data): ...",
            "app: on_receive must be a coroutine function, 'async def on_receive(stream, data)'",
        ),
        (
            "async def on_receive(stream): ...",
            "app: on_receive must take (stream, data), but takes (stream)",
        ),
    ],
)
def test_an_app_that_is_wrong(run: Run, here: Path, text: str, problem: str) -> None:
    """Says which callback, and what it must be."""
    (here / "app.py").write_text(text)

    assert run("app") == refused(problem)


def test_tasks_without_their_callbacks(run: Run, here: Path) -> None:
    """The message says which are missing."""
    (here / "app.py").write_text(
        "async def on_receive(stream, data): ...\ndef on_task(task): ...\n"
    )

    assert run("app", "--task-worker-num=2") == refused(
        "task_worker_num is 2, but app has no on_finish"
    )


def test_wrong_settings_in_code_are_found_there(run: Run, here: Path) -> None:
    """In one line each, with the place in the app's own file."""
    file = here / "app.py"
    file.write_text(
        "from trioserver import Settings\n"
        "class App:\n"
        "    settings = Settings(max_conn=0, backlog='many')\n"
    )

    assert run("app:App") == refused(
        f"{file}, line 3: max_conn must be >= 1: 0",
        f"{file}, line 3: backlog must be a whole number: 'many'",
    )


@pytest.mark.parametrize(
    ("statement", "raised"),
    [
        ("import is_not_there", "ModuleNotFoundError: No module named 'is_not_there'"),
        ("raise BaseException('no more')", "BaseException: no more"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("raise KeyError", "KeyError"),
    ],
)
def test_an_app_that_fails_to_import(run: Run, here: Path, statement: str, raised: str) -> None:
    """Its traceback begins in its own files; a line of ours follows."""
    (here / "helper.py").write_text(f"{statement}\n")
    (here / "app.py").write_text("import helper\n")

    code, out, err = run("app")

    assert (code, out) == (2, "")
    assert err == (
        "Traceback (most recent call last):\n"
        f'  File "{here}/app.py", line 1, in <module>\n'
        "    import helper\n"
        f'  File "{here}/helper.py", line 1, in <module>\n'
        f"    {statement}\n"
        f"{raised}\n"
        f"trioserver: error: app cannot be loaded: {raised}\n"
    )


def test_an_app_with_a_syntax_error(run: Run, here: Path) -> None:
    """The place is shown, and nothing of the import system."""
    (here / "app.py").write_text("def on_receive(:\n")
    code, out, err = run("app")

    assert (code, out) == (2, "")
    assert err.startswith(f'  File "{here}/app.py", line 1\n    def on_receive(:\n')
    assert err.endswith(
        "trioserver: error: app cannot be loaded: SyntaxError: invalid syntax (app.py, line 1)\n"
    )


def test_an_app_that_cannot_be_made(run: Run, here: Path) -> None:
    """A class is called without arguments."""
    (here / "app.py").write_text("class App:\n    def __init__(self, size): ...\n")
    code, out, err = run("app:App")

    assert (code, out) == (2, "")
    assert err.endswith(
        "trioserver: error: app:App cannot be loaded: TypeError: "
        "App.__init__() missing 1 required positional argument: 'size'\n"
    )


def test_the_defaults_in_the_help_are_those_of_the_class() -> None:
    """Nobody writes them twice."""
    assert {name: field.default for name, field in FIELDS.items()} == {
        name: getattr(Settings(), name) for name in FIELDS
    }
