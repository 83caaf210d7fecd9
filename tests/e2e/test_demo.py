"""`bootwire demo` as a person runs it, and as a person interrupts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bootwire.lab.network import NETNS_DIR

pytestmark = pytest.mark.e2e

SOURCE = Path(__file__).parents[2] / "src"


def start(state: Path, temporary: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "bootwire", "demo", "--state-dir", str(state), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def namespaces_of(pid: int) -> list[str]:
    return [name for name in os.listdir(NETNS_DIR) if name.startswith(f"bw{pid}-")]


@pytest.mark.parametrize("dhcp_server", ["dnsmasq", "udhcpd"])
def test_a_bios_and_a_uefi_machine_boot(state: Path, tmp_path: Path, dhcp_server: str) -> None:
    demo = start(state, tmp_path, "--dhcp-server", dhcp_server)
    out, err = demo.communicate(timeout=240)
    assert demo.returncode == 0, err
    assert out.count("kernel command line: ") == 2
    assert "2 of 2 booted" in out
    assert "hand-over" in err
    assert namespaces_of(demo.pid) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_demo_leaves_nothing(state: Path, tmp_path: Path, number: signal.Signals) -> None:
    demo = start(state, tmp_path, "--firmware", "bios")
    assert demo.stderr is not None
    for line in demo.stderr:
        if "  offer  " in line:
            break
    assert len(namespaces_of(demo.pid)) == 3
    demo.send_signal(number)
    demo.communicate(timeout=30)
    assert demo.returncode == 128 + number
    assert namespaces_of(demo.pid) == []
    assert list(tmp_path.iterdir()) == []


def test_firmware_that_nobody_knows_is_a_wrong_usage(state: Path, tmp_path: Path) -> None:
    demo = start(state, tmp_path, "--firmware", "coffee")
    _, err = demo.communicate(timeout=30)
    assert demo.returncode == 2
    assert "bios, bios-e1000, uefi" in err
