"""What is posted, as it travels, and how large that may be.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import pickle
from typing import Final

_MIN_BLOCK: Final = 1024 * 1024
_MAX_BLOCK: Final = 8 * 1024 * 1024
_BLOCKS: Final = 4
"""Pickles that a block has room for: one while it grows, and those of some tasks."""

# The largest size that malloc has been prepared for; smaller ones need nothing.
_expected = 48 * 1024


def dump(value: object, what: str, max_task_size: int) -> bytes:
    """Pickle ``value`` for the way to a worker.

    Raises:
      TypeError: if it cannot be pickled; the message says ``what`` it is and why.
      ValueError: if that takes more bytes than ``max_task_size``.
    """
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
