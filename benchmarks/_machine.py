"""Where and with what a run was made."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

_PACKAGES: Final = (
    "trioserver",
    "trio",
    "trio-parallel",
    "uvloop",
    "loky",
    "pebble",
    "celery",
    "redis",
    "cloudpickle",
)
_PROGRAMS: Final = (
    ("redis-benchmark", "--version"),
    ("redis-server", "--version"),
    ("php", "--version"),
    ("php", "--ri", "swoole"),
)


def describe() -> dict[str, Any]:
    """The machine, the versions of what is compared, and the time."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "programs": {
            " ".join(command[:-1] if len(command) == 2 else command): said
            for command in _PROGRAMS
            if (said := _first_line(*command))
        },
    }


def as_text(machine: dict[str, Any]) -> str:
    """The same in a few lines."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return "\n".join(
        [
            f"{machine['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['kernel']}",
            f"load average before: {machine['load_before']:.1f}",
            f"{machine['python']}, {versions}",
            *machine["programs"].values(),
        ]
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _first_line(program: str, *arguments: str) -> str | None:
    path = shutil.which(program)
    if path is None:
        return None
    said = subprocess.run(  # noqa: S603  # asked for its version
        [path, *arguments], capture_output=True, text=True, check=False
    )
    return next((line.strip() for line in said.stdout.splitlines() if line.strip()), None)
