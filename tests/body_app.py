"""What tests of large bodies run in task workers. No trio here: a worker imports it slowly."""

from __future__ import annotations

import os
from typing import Any

from task_app import App, wait

__all__ = ["App"]

_kept: list[Any] = []


def checked(number: int, data: bytes) -> tuple[int, bytes]:
    """``data``, which must be all of ``number``, as it came."""
    assert data == bytes([number]) * len(data)
    return number, data


def keep(data: Any) -> None:
    """Have ``data`` outlive its task."""
    _kept.append(data)


def kept() -> list[Any]:
    return _kept


def fork_and_return_large(size: int) -> tuple[int, bytes]:
    """Come back twice, once in a child process of the worker's."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return child, bytes([1 if child else 2]) * size


def spoil_large_bodies(gate: str) -> str:
    """Overwrite what shared memory can be written behind the flight recorder."""
    wait(gate)
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "r+b", buffering=0) as memory:
        for line in maps:
            where, flags, offset = line.split()[:3]
            if "trioserver-task-worker" in line and int(offset, 16):
                start, end = (int(text, 16) for text in where.split("-"))
                memory.seek(start)
                try:
                    memory.write(b"\xff" * (end - start))
                except OSError:
                    assert flags == "r--s"
    return "done"
