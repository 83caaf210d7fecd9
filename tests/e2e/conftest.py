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
FETCHED = ("blobs", "debs", "lists", "packages")  # of a state directory: what is only ever added to


@pytest.fixture(scope="session")
def state() -> Path:
    """Where fetched files are kept from one run to the next, boot loaders among them."""
    place = Path(os.environ.get("BOOTWIRE_TEST_STATE") or CHECKOUT / ".cache" / "state")
    found, advice = loaders.ready(place)
    assert not loaders.missing(found), advice
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if not worker:
        return place
    own = place.with_name(f"{place.name}-{worker}")  # a server's door and records are not those of another worker's
    own.mkdir(exist_ok=True)
    for name in FETCHED:
        (place / name).mkdir(exist_ok=True)
        if not (own / name).is_symlink():
            (own / name).symlink_to(place / name)
    return own


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
