"""The doctor on a network with dnsmasq (10.9.0.1) and Bootwire (10.9.0.2): what it finds is what is wrong there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from namespaces import Namespace, dnsmasq, lan
from product import ROOT, Server

pytestmark = pytest.mark.interop


@pytest.fixture
def hosts() -> Iterator[list[Namespace]]:
    with lan(3) as made:
        yield made


def examined(where: Namespace, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The doctor's exit status and report."""
    words = [sys.executable, "-m", "bootwire", "doctor", "--nic", "lan", "--json", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = where.call(
        lambda: subprocess.run(words, capture_output=True, text=True, env=environment, check=False, timeout=170)
    )
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


def causes(report: dict[str, Any], severity: str = "error") -> set[str]:
    return {one["cause"] for one in report["findings"] if one["severity"] == severity}


def test_nothing_is_wrong_where_bootwire_serves_beside_dnsmasq(
    hosts: list[Namespace], kernel: str, state: tuple[str, ...]
) -> None:
    network, ours, client = hosts
    with dnsmasq(network):
        server = Server(ours, kernel, *state, "--cmdline", "quiet splash")
        server.ready()
        status, report = examined(client, "--as", "bios", "--as", "ipxe")
        assert server.end()[0] == 0
    assert (status, causes(report), causes(report, "warning")) == (0, set(), set()), report
    assert all(one["well"] for one in report["trials"])
    assert "quiet splash" in report["trials"][1]["ends"]
    assert report["responders"]["10.9.0.1"] == ["addresses"]
    assert "boots bios" in report["responders"]["10.9.0.2"]
    sizes = {(one["block"], one["window"]): one for one in report["tftp"]}
    assert len(sizes) == 5
    assert all(one["octets"] > 0 and not one["trouble"] for one in sizes.values())
    assert len({one["octets"] for one in sizes.values()}) == 1


def test_nobody_offers_a_boot(hosts: list[Namespace]) -> None:
    network, _, client = hosts
    with dnsmasq(network):
        status, report = examined(client, "--as", "uefi")
    assert status == 4
    assert "no-boot-server" in causes(report)
    assert report["trials"][0]["well"] is False


def test_nobody_answers_at_all(hosts: list[Namespace]) -> None:
    status, report = examined(hosts[2], "--as", "ipxe")
    assert status == 4
    assert {"nothing-answers", "no-address-for-hosts"} <= causes(report)
    assert report["responders"] == {}


def test_a_second_boot_server(hosts: list[Namespace], kernel: str, state: tuple[str, ...]) -> None:
    network, ours, client = hosts
    with dnsmasq(network, "--dhcp-boot=other.efi,,10.9.0.1"):
        server = Server(ours, kernel, *state)
        server.ready()
        _, report = examined(client, "--as", "bios")
        server.end()
    assert "second-server" in causes(report, "warning") | causes(report)


def test_the_named_server_has_no_tftp(hosts: list[Namespace]) -> None:
    network, _, client = hosts
    with dnsmasq(network, "--dhcp-boot=loader.0,,10.9.0.2"):
        status, report = examined(client, "--as", "bios")
    assert status == 4
    assert "tftp-blocked" in causes(report)


def test_a_small_mtu_between(hosts: list[Namespace], tmp_path: Path) -> None:
    """What the server sends is larger than what passes, and nobody is told: as in a tunnel."""
    network, _, client = hosts
    (tmp_path / "loader.0").write_bytes(bytes(range(250)) * 400)
    for place in [tmp_path, *tmp_path.parents[:2], tmp_path / "loader.0"]:
        place.chmod(0o755)
    client.run("ip link set lan mtu 1300")
    with dnsmasq(network, "--enable-tftp", f"--tftp-root={tmp_path}", "--dhcp-boot=loader.0"):
        status, report = examined(client, "--as", "bios")
    assert status == 4
    assert "tftp-large-blocks" in causes(report), report


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "try  --nic eth0"), (("--nic", "lan", "--as", "amiga"), "no firmware called amiga")],
)
def test_wrong_usage(hosts: list[Namespace], arguments: tuple[str, ...], said: str) -> None:
    words = [sys.executable, "-m", "bootwire", "doctor", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = hosts[2].call(lambda: subprocess.run(words, capture_output=True, text=True, env=environment, check=False))
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
