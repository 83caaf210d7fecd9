"""What the end-to-end tests share: a Linux for each architecture and the boot loader files, fetched once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bootwire.lab.linux import Linux, small_linux
from bootwire.serve import loaders
from lab_bench import Bench

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def state() -> Path:
    """Where fetched files are kept from one run to the next, boot loaders among them."""
    place = Path(os.environ.get("BOOTWIRE_TEST_STATE") or CHECKOUT / ".cache" / "state")
    found, advice = loaders.ready(place)
    assert not loaders.missing(found), advice
    return place


@pytest.fixture(scope="session")
def linux(state: Path) -> Callable[[str], Linux]:
    systems: dict[str, Linux] = {}

    def get(architecture: str) -> Linux:
        if architecture not in systems:
            systems[architecture] = small_linux(architecture, state)
        return systems[architecture]

    return get


@pytest.fixture
def bench(tmp_path: Path, linux: Callable[[str], Linux], state: Path) -> Bench:
    """A bench for x64 machines beside dnsmasq: `with bench: …`."""
    return Bench(tmp_path, linux("amd64"), state)
