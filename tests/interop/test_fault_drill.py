"""The fault drill: netboots broken on purpose (tests/faults.py); the running server and the doctor name the cause.

The faults are made at the same time, each in namespaces of its own, since most of a drill is waiting; the tests then
look at what was said.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faults import FAULTS, NETWORK, PXE_ITSELF, Fault, Seen, Site, drill

pytestmark = pytest.mark.interop

AT_ONCE = 8
"""Faults at a time: two processors start so many doctors without firmware's seconds running out meanwhile."""


@pytest.fixture(scope="module")
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen | Exception]:
    """What was said of each fault that is to be tested."""
    chosen = [item.callspec.params["fault"] for item in request.session.items if "seen" in item.fixturenames]
    folders = [tmp_path_factory.mktemp("fault") for _ in chosen]
    for folder in folders:
        for place in (folder, *folder.parents[:2]):
            place.chmod(0o755)  # dnsmasq's TFTP serves what everybody may read

    def made(fault: Fault, folder: Path) -> Seen | Exception:
        try:
            return drill(fault, folder)
        except Exception as error:  # told by the fault's own test
            return error

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip((fault.name for fault in chosen), pool.map(made, chosen, folders), strict=True))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_the_cause_is_named(fault: Fault, seen: dict[str, Seen | Exception]) -> None:
    said = seen[fault.name]
    if isinstance(said, Exception):
        raise said
    assert (said.verdict.get("cause", ""), fault.doctor in said.findings) == (fault.verdict, True), said
    assert fault.says in said.verdict.get("because", ""), said.verdict


def test_two_machines_within_a_minute_are_both_told_of_the_server_that_they_followed(tmp_path: Path) -> None:
    for place in (tmp_path, *tmp_path.parents[:2]):
        place.chmod(0o755)
    with contextlib.ExitStack() as stack:
        site = Site(tmp_path, stack)
        site.dhcp("--dhcp-boot=other.efi", *PXE_ITSELF)
        site.bootwire()
        with ThreadPoolExecutor(2) as pool:
            reports = list(pool.map(site.examine, ("uefi", "uefi")))
        verdicts = [site.verdict(report["trials"][0]["mac"]) for report in reports]
    said = [(one.get("cause"), one.get("because", "").startswith(f"{NETWORK} answers")) for one in verdicts]
    assert said == [("second-server", True)] * 2, verdicts
