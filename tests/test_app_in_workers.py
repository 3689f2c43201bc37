"""Whatever an app is, task workers find the same one; what they cannot find is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trioserver._importing import UNGUARDED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from serving import ServerProcess

    StartServer = Callable[..., ServerProcess]

# Every kind says in its tasks who it is, so that an answer tells which app has run them.
SHOP = """\
import trio
from trioserver import Settings

class App:
    settings = Settings(bind="127.0.0.1:0", task_worker_num=1)

    def __init__(self, name="class"):
        self.name = name

    async def on_receive(self, stream, data):
        await stream.send_all(await stream.server.run_task(data))

    def on_task(self, task):
        return task.data + b" of " + self.name.encode()

    async def on_finish(self, completion): ...

class Outer:
    class Inner(App):
        def __init__(self):
            super().__init__("nested class")

def make():
    class Local(App): ...
    return Local

instance = App("instance")
name = "module"
settings = App.settings

async def on_receive(stream, data):
    await App.on_receive(None, stream, data)

def on_task(task):
    return task.data + b" of " + name.encode()

async def on_finish(completion): ...
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path) -> Path:
    """The app's module in the directory that the server runs in."""
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("shop", b"task of module"),
        ("shop:App", b"task of class"),
        ("shop:Outer.Inner", b"task of nested class"),
        ("shop:instance", b"task of instance"),
    ],
)
def test_an_app_by_name(start_server: StartServer, target: str, answer: bytes) -> None:
    """Module, class, nested class and instance."""
    server = start_server(target)

    assert server.ask(b"task") == answer
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("lines", "app", "answer"),
    [
        ("import shop", "shop", b"task of module"),
        ("import shop", "shop.Outer.Inner", b"task of nested class"),
        ("import shop", "shop.instance", b"task of instance"),
        ("import shop\nclass Mine(shop.App): ...", "Mine", b"task of class"),
        ("import shop\nclass A:\n  class B(shop.Outer.Inner): ...", "A.B", b"task of nested class"),
        ("from shop import *", "__import__('sys').modules['__main__']", b"task of module"),
    ],
)
def test_an_app_in_code(
    start_server: StartServer, directory: Path, lines: str, app: str, answer: bytes
) -> None:
    """What a guarded script gives to ``run``."""
    (directory / "script.py").write_text(
        f"import trioserver\n{lines}\n"
        f"if __name__ == '__main__':\n    trioserver.run({app})\n    print('returned')\n"
    )
    server = start_server(command=("script.py",))

    assert server.ask(b"task") == answer
    assert server.stop() == 0
    assert server.printed == ["returned"]


def test_a_script_that_runs_as_a_module(start_server: StartServer, directory: Path) -> None:
    """Workers find what it defines, too."""
    (directory / "script.py").write_text(
        "import shop, trioserver\nclass Mine(shop.App): ...\n"
        "if __name__ == '__main__':\n    trioserver.run(Mine)\n"
    )
    server = start_server(command=("-m", "script"))

    assert server.ask(b"task") == b"task of class"
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("app", "name", "why"),
    [
        ("shop.make()", "make.<locals>.Local", "it is made inside a function"),
        (
            "shop.App('nameless')",
            "App",
            "it has no name in module 'shop', where its class is: give 'module:attr' in its place",
        ),
    ],
)
def test_an_app_that_workers_cannot_find(
    start_server: StartServer, directory: Path, app: str, name: str, why: str
) -> None:
    """The start says so, and nothing has been started."""
    (directory / "script.py").write_text(
        f"import shop, trioserver\nif __name__ == '__main__':\n    trioserver.run({app})\n"
    )
    server = start_server(command=("script.py",), wait=False)

    assert server.wait() == 2
    assert server.log == (
        f"trioserver: error: shop:{name} must be importable by name in a task worker "
        f"(module:qualname), but {why}\n"
    )


def test_such_an_app_serves_without_tasks(start_server: StartServer, directory: Path) -> None:
    """Nobody else has to find it then."""
    (directory / "script.py").write_text(
        "import shop, trioserver\n"
        "class Echo:\n"
        "    async def on_receive(self, stream, data):\n"
        "        await stream.send_all(data)\n"
        "trioserver.run(Echo(), trioserver.Settings(bind='127.0.0.1:0'))\n"
    )
    server = start_server(command=("script.py",))

    assert server.ask(b"hello") == b"hello"
    assert server.stop() == 0


def test_an_app_that_is_only_there_in_the_server(
    start_server: StartServer, directory: Path
) -> None:
    """A class under the guard is missing in a worker, which says what is missing."""
    (directory / "script.py").write_text(
        "import shop, trioserver\n"
        "if __name__ == '__main__':\n"
        "    class Mine(shop.App): ...\n"
        "    trioserver.run(Mine)\n"
    )
    server = start_server(command=("script.py",), wait=False)

    assert server.wait() == 2
    assert server.log.endswith("module '__main__' has no attribute 'Mine'\n")
    assert 'File "' not in server.log


@pytest.mark.parametrize("statement", ["trioserver.run(shop)", "trioserver.run('shop:App')"])
def test_a_script_without_a_guard(
    start_server: StartServer, directory: Path, statement: str
) -> None:
    """One line says what to do, for all workers together."""
    (directory / "script.py").write_text(f"import shop, trioserver\n{statement}\n")
    server = start_server("--task-worker-num=3", command=("script.py",), wait=False)

    assert server.wait() == 2
    assert server.log == f"trioserver: error: {UNGUARDED}\n"


def test_a_program_without_a_guard(start_server: StartServer, directory: Path) -> None:
    """Where ``serve`` is called, the error is the caller's own; the worker adds no words."""
    (directory / "script.py").write_text(
        "import shop, trio, trioserver\ntrio.run(trioserver.serve, shop.App)\n"
    )
    server = start_server(command=("script.py",), wait=False)

    assert server.wait() == 1
    assert server.log.endswith(f"\ntrioserver._errors.AppError: {UNGUARDED}\n")
    assert server.log.count(UNGUARDED) == 1


def test_an_app_that_fails_in_every_worker_is_shown_once(
    start_server: StartServer, directory: Path
) -> None:
    """One traceback, from the app's own files on, and exit code 2, before anybody could connect."""
    (directory / "app.py").write_text(
        "import multiprocessing\n"
        "from shop import *\n"
        "if multiprocessing.parent_process():\n"
        "    raise LookupError('not in here')\n"
    )
    server = start_server("app", "--task-worker-num=3", wait=False)

    assert server.wait() == 2
    first, second, *rest, last = server.log.splitlines()
    assert first == "Traceback (most recent call last):"
    assert second == f'  File "{directory}/app.py", line 4, in <module>'
    assert rest[-1] == "LookupError: not in here"
    assert last.startswith("trioserver: error: task worker ")
    assert last.endswith(" cannot start: LookupError: not in here")
    assert server.log.count("Traceback") == 1


@pytest.mark.parametrize(
    ("statement", "how"),
    [("os._exit(3)", "exit code 3"), ("os.kill(os.getpid(), 9)", "signal 9")],
)
def test_a_worker_that_dies_while_it_starts(
    start_server: StartServer, directory: Path, statement: str, how: str
) -> None:
    """The start fails, and says how the process ended."""
    (directory / "app.py").write_text(
        f"import os\nfrom shop import *\ndef on_task_worker_start(worker_id):\n    {statement}\n"
    )
    server = start_server("app", wait=False)

    assert server.wait() == 2
    (line,) = server.log.splitlines()
    assert line.startswith("trioserver: error: task worker 0 (pid ")
    assert line.endswith(f" died while it was starting ({how})")
