"""The protocol of all peers: lines of limited length."""

from __future__ import annotations

from typing import Final

TERMINATOR: Final = b"\r\n"
MAX_LENGTH: Final = 2 * 2**20
"""What `Settings.package_max_length` is, unless it is set."""
REPLY: Final = b"+PONG\r\n"


class LineTooLongError(Exception):
    """A client sent a line of more than `MAX_LENGTH` bytes."""


class Lines:
    """Cuts what arrives into lines: by one split of each chunk, which is the fastest there is."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are whole by now, without their ends.

        Raises:
          LineTooLongError: if one of them, or the one that is coming in, is too long.
        """
        if self._rest:
            data = self._rest + data
        lines = data.split(TERMINATOR)
        self._rest = lines.pop()
        # Only a chunk that is longer itself can have one.
        if len(data) > MAX_LENGTH and (
            len(self._rest) > MAX_LENGTH or any(len(line) > MAX_LENGTH for line in lines)
        ):
            raise LineTooLongError
        return lines
