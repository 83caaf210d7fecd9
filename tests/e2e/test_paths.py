"""The less usual ways: a ROM that is no iPXE, a kernel that lives at a URL, and clients behind a relay."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bootwire import facts
from bootwire.lab.dhcp_servers import start_relay
from bootwire.serve.packages import fetch_package
from lab_bench import BOOTWIRE, DHCP_SERVER, FAR, NEAR, RELAY, WEB_SERVER, Bench, type_at_prompt

pytestmark = pytest.mark.e2e


def test_a_plain_pxe_rom_gets_undionly_once(bench: Bench, record_property: Callable[[str, object], None]) -> None:
    """QEMU's ROM asks without the user class of an iPXE, takes what it is offered, and starts it as a PXE NBP.

    The setting is taken back before the start: the ROM would hand it on in its cached DHCP packets.
    """
    with bench:
        bench.start_dhcp()
        bench.serve("bios", more=["--loader", "ipxe"])
        machine = bench.power_on("bios")
        machine.wait_for("Press Ctrl-B for the iPXE command line", 30)
        machine.type("\x02")
        machine.wait_for("iPXE> ", 10)
        type_at_prompt(machine, "set user-class plain", "ifconf --configurator dhcp net0", "clear user-class")
        machine.type("chain tftp://${proxydhcp/next-server}/${proxydhcp/filename}\r")
        booted = bench.finish(machine)
    assert booted.token in booted.command_line.split()
    assert booted.loaders == [("tftp", "bios/undionly.kpxe")]
    clients = [fact.client for fact in booted.facts if isinstance(fact, facts.Discovered)]
    assert clients[0] == "BIOS"
    assert clients[-1].startswith("iPXE")
    booted.beside += ", asking as a plain PXE ROM"
    record_property("booted", booted.row())


def test_on_the_computer_of_the_dhcp_server(bench: Bench, record_property: Callable[[str, object], None]) -> None:
    """dnsmasq has port 67 there; Bootwire hears and answers by a capture socket."""
    with bench:
        bench.dhcp = bench.ours
        bench.start_dhcp()
        bench.serve("uefi")
        booted = bench.finish(bench.power_on("uefi"))
    assert booted.token in booted.command_line.split()
    listening = {
        record.fact.service: record.fact for record in booted.records if isinstance(record.fact, facts.Listening)
    }
    assert listening["dhcp"].how.startswith("capture socket beside dnsmasq")
    assert {fact.by for fact in booted.facts if isinstance(fact, facts.AddressSeen)} == {BOOTWIRE}
    booted.beside += " on the same computer"
    record_property("booted", booted.row())


def test_a_kernel_from_a_url(bench: Bench, record_property: Callable[[str, object], None]) -> None:
    with bench:
        web = bench.network.host("web", {bench.lan: f"{WEB_SERVER}/24"})
        root = bench.directory / "web"
        root.mkdir()
        (root / "linux").symlink_to(bench.linux.kernel)
        command = [sys.executable, "-u", "-m", "http.server", "80", "--directory", str(root)]
        with (bench.directory / "web.log").open("wb") as log:
            server = web.start(command, stdout=subprocess.PIPE, stderr=log)
        assert server.stdout is not None
        with server.stdout as out:
            assert b"Serving" in out.readline()
        bench.start_dhcp()
        bench.serve("bios", [f"http://{WEB_SERVER}/linux", *map(str, bench.initrds)])
        booted = bench.finish(bench.power_on("bios"))
        asked = (bench.directory / "web.log").read_text()
    assert booted.token in booted.command_line.split()
    sizes = {fact.name: fact.octets for fact in booted.delivered}
    assert sizes["kernel"] == bench.linux.kernel.stat().st_size
    assert '"GET /linux HTTP/1.1" 200' in asked
    booted.beside += ", kernel from a URL"
    record_property("booted", booted.row())


def test_the_loader_of_the_distribution_s_own_package(
    bench: Bench, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Debian 12's is of 2019: it knows no autoexec.ipxe and gets its script by the second DHCP answer."""
    package = fetch_package("ipxe", members=lambda path: path.endswith("/snponly.efi"), state=bench.state)
    given = tmp_path / "loaders"
    given.mkdir()
    for path, blob in package.files.items():
        (given / Path(path).name).write_bytes(blob.read_bytes())
    with bench:
        bench.start_dhcp()
        bench.serve("uefi", more=["--loaders", str(given)])
        booted = bench.finish(bench.power_on("uefi"))
    assert booted.token in booted.command_line.split()
    assert booted.loaders == [("tftp", "x86_64/snponly.efi")]
    scripts = [fact for fact in booted.facts if isinstance(fact, facts.ScriptServed)]
    assert package.version in scripts[-1].loader
    record_property("booted", booted.row())


@pytest.mark.parametrize(("relay", "firmware"), [("dhcrelay", "uefi"), ("dnsmasq", "bios")])
def test_a_client_behind_a_relay(
    bench: Bench, relay: str, firmware: str, record_property: Callable[[str, object], None]
) -> None:
    with bench:
        far = bench.network.segment()
        ports = {bench.lan: f"{RELAY}/24", far: f"{FAR.router}/24"}
        router = bench.network.host("router", ports, forwards=True)
        for host in (bench.dhcp, bench.ours):
            host.ip(f"route add {FAR.network}/{FAR.prefix} via {RELAY}")
        bench.start_dhcp([NEAR, FAR])
        bench.serve(firmware)
        start_relay(relay, router, ("eth1", FAR.router), "eth0", [DHCP_SERVER, BOOTWIRE], bench.directory)
        booted = bench.finish(bench.power_on(firmware, far))
    assert booted.token in booted.command_line.split()
    asked = [fact.relay for fact in booted.facts if isinstance(fact, facts.Discovered)]
    assert set(asked) == {FAR.router}
    assert {fact.peer.rpartition(".")[0] for fact in booted.delivered} == {"10.77.1"}
    booted.beside += f", through {relay}"
    record_property("booted", booted.row())
