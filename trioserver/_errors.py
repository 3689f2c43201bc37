"""The exception family.

Trio's own words keep their meaning everywhere in this package:
`trio.ClosedResourceError` says that you closed it, `trio.BrokenResourceError`
that the world did, `trio.BusyResourceError` that two tasks collided. What is
here says the rest. No import of trio: task workers load this module too.
"""

from __future__ import annotations


class TrioserverError(Exception):
    """Base of every exception that only this package raises."""


class AppError(TrioserverError):
    """The app cannot be loaded or is not one: which callback, and what is wrong with it.

    Args:
      reason: In one line for each thing that is wrong.
      remote_traceback: The traceback as text, if the app failed in a task worker.
    """

    def __init__(self, reason: str, remote_traceback: str = "") -> None:
        super().__init__(reason, remote_traceback)
        self.reason = reason
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        return self.reason


class AddressError(TrioserverError):
    """An address of ``bind`` cannot be served: which one, and why."""


class FramingError(TrioserverError):
    """A peer broke the framing; its connection is closed and nothing is delivered from there on."""


class FrameTooLargeError(FramingError):
    """A frame is longer than the limit.

    Args:
      size: Bytes of the frame as far as they are known.
      max_length: The limit in bytes.
    """

    def __init__(self, size: int, max_length: int) -> None:
        super().__init__(size, max_length)
        self.size = size
        self.max_length = max_length

    def __str__(self) -> str:
        return f"frame of {self.size} bytes exceeds max_length {self.max_length}"


class IncompleteFrameError(FramingError):
    """The peer's data ended in the middle of a frame.

    Args:
      received: Bytes of the frame that had come.
      expected: Bytes that the whole frame would have had, None where only a terminator would tell.
    """

    def __init__(self, received: int, expected: int | None) -> None:
        super().__init__(received, expected)
        self.received = received
        self.expected = expected

    def __str__(self) -> str:
        wanted = "a terminator" if self.expected is None else f"{self.expected} bytes"
        return (
            "end of data in the middle of a frame "
            f"(received {self.received} bytes, expected {wanted})"
        )


class TaskError(TrioserverError):
    """Base of the ways in which a task can end without a result."""


class TaskFailed(TaskError):
    """The task raised, or its data or result did not survive pickling.

    Args:
      summary: Type and message, as the last line of a traceback has them: ``ValueError: no good``.
      remote_traceback: The traceback in the task worker as text, empty if there was none.
      original: The exception itself where it survived pickling, else None; also the ``__cause__``.
    """

    def __init__(
        self, summary: str, remote_traceback: str = "", original: BaseException | None = None
    ) -> None:
        super().__init__(summary, remote_traceback, original)
        self.summary = summary
        self.remote_traceback = remote_traceback
        self.original = original
        self.__cause__ = original

    def __str__(self) -> str:
        if not self.remote_traceback:
            return self.summary
        return f"{self.summary}\n\nin the task worker:\n{self.remote_traceback}"


class TaskTimeout(TaskError):
    """The task ran out of its time: it was killed, or had not begun.

    Args:
      seconds: The time that it had: ``timeout`` if it ran, ``queue_timeout`` if not.
      begun: Whether it had begun to run, and so may have done a part of its work.
    """

    def __init__(self, seconds: float, begun: bool = True) -> None:  # noqa: FBT001, FBT002  # pickles
        super().__init__(seconds, begun)
        self.seconds = seconds
        self.begun = begun

    def __str__(self) -> str:
        what = "end" if self.begun else "begin"
        return f"the task did not {what} within {self.seconds:g} s"


class TaskCancelled(TaskError):
    """The task was cancelled before it ended.

    Args:
      reason: By whom or by what.
      begun: Whether it had begun to run, and so may have done a part of its work.
    """

    def __init__(self, reason: str, begun: bool = False) -> None:  # noqa: FBT001, FBT002  # pickles
        super().__init__(reason, begun)
        self.reason = reason
        self.begun = begun

    def __str__(self) -> str:
        state = "while it ran" if self.begun else "before it began"
        return f"the task was cancelled {state}: {self.reason}"


class TaskWorkerCrashed(TaskError):
    """The task worker died while it ran the task.

    Args:
      exit_code: As `multiprocessing.Process.exitcode` has it: negative for a signal, None if that
        is unknown.
    """

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code

    @property
    def signal(self) -> int | None:
        """The number of the signal that killed the worker, None if it exited."""
        return -self.exit_code if self.exit_code is not None and self.exit_code < 0 else None

    def __str__(self) -> str:
        if self.exit_code is None:
            return "the task worker died while it ran the task"
        how = f"signal {self.signal}" if self.signal else f"exit code {self.exit_code}"
        return f"the task worker died while it ran the task ({how})"


# Not by way of the class: its metaclass may answer as it likes.
_name_of = type.__dict__["__name__"].__get__


def name_of(exc: BaseException) -> str:
    """The name of the type of ``exc``; never raises."""
    name: str = _name_of(type(exc))
    return name


def summary_of(exc: BaseException) -> str:
    """Type and message of ``exc``, as the last line of a traceback has them; never raises."""
    try:
        text = "".join(["", str(exc)])  # exactly a str: one of the app's own class may raise, too
    except BaseException:  # noqa: ASYNC103, BLE001  # a broken __str__ is the user's too
        text = "<its message cannot be shown>"
    return f"{name_of(exc)}: {text}" if text else name_of(exc)
