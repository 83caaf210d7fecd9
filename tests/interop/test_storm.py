"""The storm in small: machines of every kind boot at once from `bootwire boot` beside dnsmasq, over real sockets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.interop

STORM = Path(__file__).parents[2] / "benchmarks" / "storm.py"


def test_forty_machines_boot_at_once_and_nothing_is_asked_for_twice():
    source = str(STORM.parents[1] / "src")
    command = [sys.executable, str(STORM), "--machines", "40", "--kernel-mib", "2", "--initrd-mib", "4"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": source})
    assert run.returncode == 0, run.stdout + run.stderr
