"""``python -m trioserver`` and the console script ``trioserver``.

Nothing but the standard library is imported before signals are in hand: a Ctrl-C while the rest is
imported ends the start without a traceback.
"""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _leave)
    from trioserver._cli import main as run_command_line  # noqa: PLC0415  # see above

    sys.exit(run_command_line())


def _leave(_signum: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
