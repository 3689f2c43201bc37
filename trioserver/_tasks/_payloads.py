"""What is posted, and what comes back, as it travels, and how large that may be.

All of it is pickled, but for a single number, a text or None: to make a pickler takes longer than
everything else that becomes of such a value, and marshal needs none. The first byte tells which.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import marshal
import pickle
from typing import Any, Final

PLAIN: Final = frozenset({type(None), bool, int, float, str})
"""Types whose values, and not those of their subclasses, marshal gives back as they went."""
MARSHAL_VERSION: Final = 2
"""The version of marshal's format that interns no text, and looks for nothing twice."""
_MARSHALLED: Final = frozenset(b"NTFilgu")
"""First bytes of those; a pickle begins with 128. Marshal sees nothing else: it trusts too much."""
_MIN_BLOCK: Final = 1024 * 1024
_MAX_BLOCK: Final = 8 * 1024 * 1024
_BLOCKS: Final = 4
"""Pickles that a block has room for: one while it grows, and those of some tasks."""

# The largest size that malloc has been prepared for; smaller ones need nothing.
_expected = 48 * 1024


def dump(value: object, what: str, max_task_size: int) -> bytes:
    """Make bytes of ``value`` for the way to a worker; `load` makes a copy of it.

    Raises:
      TypeError: if it cannot be pickled; the message says ``what`` it is and why.
      ValueError: if that takes more bytes than ``max_task_size``.
    """
    if type(value) in PLAIN:
        payload = dump_plain(value)
    else:
        try:
            payload = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        except (Exception, SystemExit, GeneratorExit) as exc:  # it runs code of the user's
            kind = type(value).__name__
            raise TypeError(f"{what} of type {kind} cannot be pickled: {exc}") from exc
    if len(payload) > _expected:
        expect_size(len(payload))
    if len(payload) > max_task_size:
        check_size(payload, what, max_task_size)
    return payload


def dump_plain(value: Any) -> bytes:
    """Make bytes of a value of one of the `PLAIN` types."""
    return marshal.dumps(value, MARSHAL_VERSION)


def load(body: bytes | memoryview) -> Any:  # whatever it is
    """The value that `dump` or `dump_plain` made ``body`` of, or pickle; raises anything."""
    if body[0] in _MARSHALLED:
        return marshal.loads(body)  # noqa: S302  # nothing but these
    return pickle.loads(body)


def expect_size(size: int) -> None:
    """Have malloc keep memory for pickles of ``size`` bytes, and not map it afresh for each.

    A page that is touched for the first time costs more than ten times as much as a copy of it.
    glibc maps blocks of 128 KiB and more until one of that size is freed, and serves such blocks
    from its heap from then on. But pickle asks for half more than it needs and gives back what is
    over, so that the blocks that are freed are always too small for the next one. So one is freed
    here, untouched, that is large enough. There is a limit, because the heap keeps as much as two
    such blocks for good.
    """
    global _expected  # noqa: PLW0603  # malloc is the process's too
    if size > _expected and _expected * _BLOCKS < _MAX_BLOCK:
        _expected = 2 * size  # sizes that grow bit by bit need not come here each time
        bytes(max(_MIN_BLOCK, min(_BLOCKS * size, _MAX_BLOCK)))


def check_size(payload: bytes, what: str, max_task_size: int) -> None:
    """Refuse what is too large to travel.

    Raises:
      ValueError: if ``payload`` has more bytes than ``max_task_size``; it says ``what`` that is.
    """
    if len(payload) > max_task_size:
        raise ValueError(
            f"{what} is {len(payload)} bytes pickled, more than max_task_size {max_task_size}"
        )
