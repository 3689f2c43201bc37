"""What runs in a fresh interpreter: ``python -m trioserver._processes VERB``.

``check FD LIFELINE`` reads a plan on stdin, loads the app, and writes the fresh plan, or what is
wrong, to descriptor FD; stdout and stderr are the app's. It dies when LIFELINE is closed elsewhere.

``event-worker NUMBER APP`` is what its manager says on stdin; the arguments are for ``ps``.
"""

from __future__ import annotations

import sys

from trioserver._signals import leave_on_signals


def main() -> None:
    """Do what the arguments say."""
    leave_on_signals()
    verb, *arguments = sys.argv[1:]
    if verb == "event-worker":
        from trioserver._processes._entry import (  # noqa: PLC0415  # see `__main__`
            run_event_worker_process,
        )

        sys.exit(run_event_worker_process())
    if verb == "check":
        from trioserver._processes._checking import check_here  # noqa: PLC0415  # see `__main__`

        check_here(*map(int, arguments))
    else:
        sys.exit(f"trioserver._processes: {verb!r} is unknown")


if __name__ == "__main__":
    main()
