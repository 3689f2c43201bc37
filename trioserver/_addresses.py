"""The addresses of ``bind``, as text and as values."""

from __future__ import annotations

import os

import attrs

_MAX_PORT = 65_535
_MAX_UNIX_PATH = 107
"""Bytes that a Unix socket's path may have on Linux (macOS has room for three less)."""


@attrs.frozen
class TcpAddress:
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen
class UnixAddress:
    """A path, absolute."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@attrs.frozen
class FdAddress:
    """A socket that was passed to the process when it was started, as systemd does it."""

    name: str
    """Its number or its name; empty for all that were passed."""

    def __str__(self) -> str:
        return f"fd://{self.name}"


def parse_address(text: str) -> TcpAddress | UnixAddress | FdAddress:
    """Read ``host:port``, ``[v6]:port``, ``unix:/path`` or ``fd://``.

    Raises:
      ValueError: if it is none of them; the message has the text.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path or "\0" in path:
            raise ValueError(f"a Unix address is 'unix:/path': {text!r}")
        path = os.path.abspath(path)  # text is what the socket module wants
        if len(os.fsencode(path)) > _MAX_UNIX_PATH:
            raise ValueError(f"a Unix socket's path has at most {_MAX_UNIX_PATH} bytes: {text!r}")
        return UnixAddress(path)
    if text.startswith("fd://"):
        return FdAddress(text.removeprefix("fd://"))
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"an IPv6 address stands in brackets, '[::1]:9501': {text!r}")
    if not colon or not host:
        raise ValueError(f"an address is 'host:port', '[v6]:port' or 'unix:/path': {text!r}")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= _MAX_PORT):  # noqa: PLR2004  # int refuses thousands
        raise ValueError(f"a port is a number from 0 to {_MAX_PORT}: {text!r}")
    return TcpAddress(host, int(port))
