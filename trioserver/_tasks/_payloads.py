"""What is posted, as it travels, and how large that may be.

No trio, no attrs: task workers load this module.
"""

from __future__ import annotations

import pickle


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
    if len(payload) > max_task_size:
        check_size(payload, what, max_task_size)
    return payload


def check_size(payload: bytes, what: str, max_task_size: int) -> None:
    """Refuse what is too large to travel.

    Raises:
      ValueError: if ``payload`` has more bytes than ``max_task_size``; it says ``what`` that is.
    """
    if len(payload) > max_task_size:
        raise ValueError(
            f"{what} is {len(payload)} bytes pickled, more than max_task_size {max_task_size}"
        )
