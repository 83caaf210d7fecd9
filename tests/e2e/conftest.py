"""What the end-to-end tests share: a Linux for each architecture and the boot loader files, fetched once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bootwire.lab.linux import Linux, small_linux
from lab_bench import Bench

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def state() -> Path:
    """Where fetched files are kept from one run to the next."""
    return Path(os.environ.get("BOOTWIRE_TEST_STATE") or CHECKOUT / ".cache" / "state")


@pytest.fixture(scope="session")
def linux(state: Path) -> Callable[[str], Linux]:
    systems: dict[str, Linux] = {}

    def get(architecture: str) -> Linux:
        if architecture not in systems:
            systems[architecture] = small_linux(architecture, state)
        return systems[architecture]

    return get


@pytest.fixture(scope="session")
def loaders(state: Path) -> None:
    command = [sys.executable, "-m", "bootwire", "assets", "fetch", "--state-dir", str(state)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def bench(tmp_path: Path, linux: Callable[[str], Linux], loaders: None, state: Path) -> Callable[..., Bench]:
    """Make a bench for an architecture, beside a DHCP server: `with bench("amd64", "udhcpd") as lab: …`."""

    def make(architecture: str = "amd64", dhcp_server: str = "dnsmasq") -> Bench:
        return Bench(tmp_path, linux(architecture), state, dhcp_server)

    return make
