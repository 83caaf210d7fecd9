"""What the end-to-end tests share: a Linux for each architecture and the boot loader files, fetched once.

The last lines of a run are the rows of docs/reference/firmware.md: what was booted just now, and how.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bootwire.lab.linux import Linux, small_linux
from bootwire.serve import loaders
from lab_bench import Bench

CHECKOUT = Path(__file__).parents[2]
ROW = "booted"


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.getreports("passed")
    rows = sorted({row for report in reports for name, row in report.user_properties if name == ROW})
    if rows:
        terminalreporter.section("booted for real")
        terminalreporter.write_line("| firmware | version | card | beside | path | seconds | kernel |")
        terminalreporter.write_line("|---|---|---|---|---|---|---|")
        for row in rows:
            terminalreporter.write_line(row)
