"""What keeps an address from being served, in one line."""

from __future__ import annotations

import errno
from typing import NoReturn

from trioserver._errors import AddressError


def refuse_address(address: str, exc: OSError) -> NoReturn:
    """Raise ``exc`` as an `AddressError` that names the address."""
    reason = (exc.strerror or str(exc)).lower()
    if exc.errno == errno.EACCES and not address.startswith("unix:"):
        reason += " (ports below 1024 need privileges)"
    raise AddressError(f"{address}: {reason}") from exc
