"""Memory that several processes share, by a descriptor that travels between them.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import os
import tempfile


def create_shared_memory(name: str, size: int) -> int:
    """A descriptor of ``size`` fresh bytes, all zero, that no file name leads to."""
    if hasattr(os, "memfd_create"):
        import fcntl  # noqa: PLC0415  # its names of seals are Linux's alone

        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        # A task that shrank it would have the server killed by SIGBUS at its next look; what it
        # writes there must end somewhere, too.
        fcntl.fcntl(
            fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        )
        return fd
    with tempfile.TemporaryFile() as file:  # macOS: nameless from the start does the same
        fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
