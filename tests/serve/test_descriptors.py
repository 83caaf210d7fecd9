"""More descriptors than a shell gives, and no growing of the kernel's table while machines wait."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

PROGRAM = """
import os, re
from bootwire.serve import descriptors
def size(): return int(re.search(r"FDSize:\\s*(\\d+)", open("/proc/self/status").read())[1])
before, inherited = size(), set(os.listdir("/proc/self/fd"))
print(before, descriptors.prepare(4096), size(), set(os.listdir("/proc/self/fd")) - inherited)
"""


@pytest.mark.parametrize(("soft", "hard", "most"), [(256, 8192, 4096), (512, 512, 512), (6000, 8192, 6000)])
def test_limit_and_table_are_made_for_what_may_come(soft: int, hard: int, most: int) -> None:
    """FDSize is what the kernel's table has room for; not one descriptor more is open afterwards."""
    words = [sys.executable, "-c", PROGRAM]
    limits = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))  # noqa: E731
    done = subprocess.run(words, capture_output=True, text=True, check=True, preexec_fn=limits)
    before, limit, after, left = done.stdout.split(maxsplit=3)
    assert int(before) < 512
    assert int(limit) == most
    assert int(after) >= min(most, 4096)
    assert left.strip() == "set()"
