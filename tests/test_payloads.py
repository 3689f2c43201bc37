"""What payloads cost on their way."""

from __future__ import annotations

import pickle
import platform
import resource

import pytest

from trioserver._tasks._payloads import dump

MIB = 1024 * 1024


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc has other habits")
def test_memory_of_large_payloads_is_kept() -> None:
    """It is not mapped afresh each time, at a fault for each page."""
    data = bytes(MIB)
    for _ in range(3):
        dump(data, "the data", 2 * MIB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        pickle.loads(dump(data, "the data", 2 * MIB))
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert faults < 100 * MIB / resource.getpagesize() / 4
