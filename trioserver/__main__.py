"""``python -m trioserver`` and the console script ``trioserver``.

Nothing that takes its time is imported before signals are in hand, so that a Ctrl-C meanwhile
prints no traceback; nor at module level, which each task worker of the console script runs again.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from trioserver._signals import leave_on_signals


def main() -> NoReturn:
    """Run the command line and exit."""
    leave_on_signals()
    from trioserver._inheritance import receive_inheritance  # noqa: PLC0415  # see above

    receive_inheritance()
    from trioserver._cli import main as run_command_line  # noqa: PLC0415  # see above

    sys.exit(run_command_line())


if __name__ == "__main__":
    main()
