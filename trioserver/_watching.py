"""``--reload``: a reload whenever a file of the app changes, for development."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from trioserver._errors import AppError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trioserver._controls import Controls

logger = logging.getLogger("trioserver.server")


def check_watching() -> None:
    """See whether files can be watched.

    Raises:
      AppError: if watchfiles is not installed.
    """
    try:
        import watchfiles  # noqa: F401, PLC0415  # not everybody has it
    except ImportError:
        raise AppError("reload needs watchfiles: pip install 'trioserver[reload]'") from None


async def reload_on_change(files: Iterable[str], controls: Controls) -> None:
    """Ask for a reload whenever a Python file beside ``files`` changes, until cancelled.

    What is broken is said by the reload, and watched as before.
    """
    import watchfiles  # noqa: PLC0415  # as above

    directories = sorted({os.path.dirname(file) for file in files})
    logger.info("watching %s", ", ".join(directories))
    changes = watchfiles.awatch(
        *directories, watch_filter=watchfiles.PythonFilter(), recursive=False
    )
    async for changed in changes:
        names = sorted({os.path.basename(path) for _, path in changed})
        logger.info("%s changed", ", ".join(names))
        try:
            controls.reload()
        except RuntimeError as exc:
            logger.warning("no reload: %s", exc)
