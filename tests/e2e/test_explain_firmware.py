"""What real firmware says on the wire, captured on the bridge, explained, and read by tshark, too.

Each machine boots once; every claim is about that one capture (`--dist loadscope` keeps it in one worker).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import explain_against_tshark as oracle
import pytest
from click.testing import CliRunner

from bootwire.cli import main
from bootwire.lab import dhcp_servers
from bootwire.lab.linux import Linux
from lab_bench import BOOTWIRE, DHCP_SERVER, MAC, NEAR, Bench, Booted

pytestmark = pytest.mark.e2e

SUMMARY = {"bios": "iPXE", "uefi": "UEFI x64"}
SHOUT = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
sender.sendto(sys.argv[1].encode(), ("10.77.0.255", 9))
"""


@dataclass
class Explained:
    """A capture and what explain says of it: exit status, page, document."""

    path: Path
    status: int
    page: str
    document: dict[str, Any]
    booted: Booted | None = None

    @property
    def machine(self) -> dict[str, Any]:
        (found,) = self.document["machines"]
        assert isinstance(found, dict)
        return found

    @property
    def told(self) -> list[str]:
        return [one["text"] for one in self.machine["story"]]


def explained(path: Path, booted: Booted | None = None) -> Explained:
    run = CliRunner().invoke(main, ["explain", str(path)])
    document = json.loads(CliRunner().invoke(main, ["explain", str(path), "--json"]).stdout)
    return Explained(path, run.exit_code, run.output, document, booted)


@contextmanager
def captured(bench: Bench) -> Iterator[Path]:
    """Everything that crosses the network's bridge, into a file; at the end nothing is left under way to it."""
    path = bench.directory / "bridge.pcap"
    command = [
        "tcpdump",
        "-i",
        bench.lan.bridge,
        "-B",
        "65536",
        "-U",
        "--immediate-mode",
        "-Z",
        "root",
        "-w",
        str(path),
    ]
    process = bench.network.wire.start(command, stderr=subprocess.PIPE)
    with process:
        assert process.stderr is not None
        assert any(b"listening on" in line for line in process.stderr)
        yield path
        marker = b"the capture ends here"
        deadline = time.monotonic() + 20
        while marker not in path.read_bytes()[-4096:]:
            assert time.monotonic() < deadline, "the capture does not come to its end"
            bench.ours.run([sys.executable, "-c", SHOUT, marker.decode()])
        process.terminate()
        said = process.stderr.read()
    assert b"\n0 packets dropped by kernel" in said, said


@pytest.fixture(scope="module", params=SUMMARY)
def healthy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, linux: Callable[[str], Linux], state: Path
) -> Explained:
    name: str = request.param
    with Bench(tmp_path_factory.mktemp(f"explain-{name}"), linux("amd64"), state) as bench:
        bench.start_dhcp()
        with captured(bench) as path:
            bench.serve(name)
            booted = bench.finish(bench.power_on(name))
        return explained(path, booted)


def test_a_healthy_boot_has_no_errors(healthy: Explained) -> None:
    assert [one for one in healthy.document["findings"] if one["severity"] != "info"] == []
    assert healthy.status == 0


def test_it_says_who_asked_who_answered_and_what_was_taken(healthy: Explained) -> None:
    assert healthy.booted is not None
    firmware = SUMMARY[healthy.booted.machine.firmware.name]
    assert healthy.machine["machine"] == MAC
    assert firmware in healthy.machine["firmware"]
    told = " ".join(healthy.told)
    (address,) = healthy.machine["addresses"]
    assert healthy.told[0].startswith(f"{healthy.machine['firmware']} asks who is there")
    assert f"{DHCP_SERVER} offers the address {address}." in healthy.told
    assert f"{BOOTWIRE} offers as a proxy, " in told
    assert f"It takes {address} of {DHCP_SERVER}." in told
    assert f"{DHCP_SERVER} gives it {address}." in healthy.told
    assert f"{MAC}  {healthy.machine['firmware']}  {address}" in healthy.page


def test_every_file_that_was_delivered_is_told_whole(healthy: Explained) -> None:
    assert healthy.booted is not None
    read = [*healthy.machine["transfers"], *healthy.machine["requests"]]
    whole = {(one.get("name") or one["path"].lstrip("/")): one["octets"] for one in read if one["complete"]}
    for fact in healthy.booted.delivered:
        found = [size for name, size in whole.items() if name.endswith(fact.name)]
        assert fact.octets in found, (fact.name, whole)


def test_every_field_is_as_tshark_reads_it(healthy: Explained) -> None:
    report = oracle.compare(healthy.path)
    assert report.differences == []
    assert report.notes == []
    assert report.compared["value"] > 60
    assert report.compared["header"] > 100
    assert report.compared["requests"] == report.compared["statuses"] == 1
    assert report.compared["blocks"] == len(healthy.machine["transfers"])


def test_bootwire_s_offer_is_what_explain_says_it_would_have_been(healthy: Explained) -> None:
    assert healthy.booted is not None
    offered = [fact for fact in healthy.booted.facts if type(fact).__name__ == "Offered"]
    assert healthy.machine["bootwire"].startswith("offered ")
    assert f"({offered[0].recipe})" in healthy.machine["bootwire"]  # type: ignore[attr-defined]


def test_a_missing_loader_is_named(tmp_path: Path, linux: Callable[[str], Linux], state: Path) -> None:
    with Bench(tmp_path / "missing", linux("amd64"), state) as bench, captured(bench) as path:
        root = bench.directory / "tftp"
        root.mkdir()
        argv = [*dhcp_servers.DHCP_SERVERS["dnsmasq"].argv([NEAR], bench.directory)]
        bench.dhcp.start([*argv, "--enable-tftp", f"--tftp-root={root}", "--dhcp-boot=no-such-loader.efi"])
        machine = bench.power_on("uefi")
        machine.wait_for(r"PXE-E\d\d", 90)
    seen = explained(path)
    errors = {one["cause"]: one for one in seen.document["findings"] if one["severity"] == "error"}
    assert set(errors) == {"file-missing"}
    assert "no-such-loader.efi" in errors["file-missing"]["because"]
    assert DHCP_SERVER in errors["file-missing"]["because"]
    assert seen.status == 4
    assert oracle.compare(path).differences == []
