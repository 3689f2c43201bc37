"""Telling systemd how the server is: sd_notify(3), for ``Type=notify`` and ``notify-reload``."""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import final

import trio

logger = logging.getLogger("trioserver.server")


@final
class Notifier:
    """Sends what there is to tell; nobody need listen, and a failure is a line for debugging.

    Args:
      address: The socket: a path, or ``@`` and an abstract name; empty for none. That of the
        environment unless given.
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        self._is_stopping = False

    def ready(self, status: str) -> None:
        """The server accepts, or has come through a reload."""
        self._send("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; `ready` must follow."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")

    def stopping(self) -> None:
        """The server stops; said once."""
        if not self._is_stopping:
            self._is_stopping = True
            self._send("STOPPING=1", "STATUS=stopping")

    async def run_watchdog(self) -> None:
        """Say that the event loop is alive, as often as the service manager wants to hear it."""
        usec = os.environ.get("WATCHDOG_USEC", "")
        pid = os.environ.get("WATCHDOG_PID", "")
        if not self._address or not usec.isdigit() or not int(usec):
            return
        if pid not in {"", str(os.getpid())}:  # it watches another process
            return
        while True:
            self._send("WATCHDOG=1")
            await trio.sleep(int(usec) / 1_000_000 / 2)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        # An abstract name begins with a zero byte, which no variable can have.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), address)
        except (OSError, ValueError) as exc:
            logger.debug("NOTIFY_SOCKET %s: %s", self._address, exc)
