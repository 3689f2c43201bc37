"""An app whose task workers note their lives in a directory, and die or hang as it says there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import task_app

HERE: Final = "TEST_LIVES"
"""The variable that names the directory; processes inherit it."""


class App(task_app.App):
    """Obeys the files ``die`` (a number: the exit code, or a text to raise) and ``hang``."""

    def on_task_worker_start(self, worker_id: int) -> None:
        super().on_task_worker_start(worker_id)
        note("started", f"{worker_id} {os.getpid()}")
        die = here() / "die"
        if die.exists():
            how = die.read_text()
            if how.isdecimal():
                os._exit(int(how))
            raise RuntimeError(how)

    def on_task_worker_stop(self, worker_id: int) -> None:
        note("stopped", f"{worker_id} {os.getpid()}")
        if (here() / "hang").exists():
            (here() / "hang").unlink()
            task_app.wait(str(here() / "gate"))


def here() -> Path:
    return Path(os.environ[HERE])


def note(name: str, line: str) -> None:
    """Append ``line`` whole, whoever else does."""
    with open(here() / name, "a") as file:
        file.write(f"{line}\n")


def run(number: int) -> int:
    """Note each run, in one write."""
    note("runs", str(number))
    return os.getpid()


_kept: list[bytearray] = []


def keep(size: int) -> int:
    """Grow by ``size`` bytes, for good."""
    _kept.append(bytearray(b"\1") * size)
    return os.getpid()
