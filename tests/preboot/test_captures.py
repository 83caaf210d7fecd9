"""Personas beside captures of the real firmware: the same messages in the same order, option by option.

The captures are of QEMU machines that Bootwire booted; tests/vectors/firmware holds what each machine sent.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bootwire.engine import MS
from bootwire.policy.decide import Offerings
from bootwire.preboot.personas import bios, edk2, ipxe, uefi_http
from bootwire.preboot.personas.steps import Booted, Machine, Persona
from bootwire.wire import dhcp4
from persona_lan import Bootwire, DhcpServer, pe

VECTORS = Path(__file__).parents[1] / "vectors" / "firmware"
MAC = bytes.fromhex("525400770001")
OLD, NEW = "1.0.0+git-20190125.36a4c85-5.1", "2.0.0+dfsg-5"


class Pinging(DhcpServer):
    """Looks whether anybody has the address before it offers it, as dnsmasq does; acknowledges at once."""

    def __init__(self, patience: int) -> None:
        super().__init__()
        self.patience = patience
        self.delay = 0

    def __call__(self, seen):
        self.delay = self.patience if seen.message.type == dhcp4.DISCOVER else MS
        return super().__call__(seen)


def efi_ipxe(machine: Machine) -> Persona:
    return ipxe.rom(machine, ipxe.build("efi", 7, OLD))


def aavmf(machine: Machine) -> Persona:
    return edk2.boot(machine, edk2.Build(11))


@pytest.mark.parametrize(
    ("name", "persona", "version", "delay"),
    [
        ("ovmf-pxe", edk2.boot, OLD, MS),
        ("aavmf-pxe", aavmf, NEW, MS),
        ("ovmf-http", uefi_http.boot, NEW, MS),
        ("ipxe-rom-bios", ipxe.rom, OLD, 2900 * MS),
        ("ipxe-efi", efi_ipxe, OLD, 3005 * MS),
        ("undionly", bios.boot, NEW, MS),
    ],
)
def test_a_persona_sends_what_the_firmware_sent(name, persona, version, delay):
    loaders = frozenset({"arm64/ipxe.efi", "x86_64/snponly.efi", "bios/undionly.kpxe"})
    server = Bootwire(initrds=(b"one", b"two"), offerings=Offerings(loaders=loaders))
    server.loaders["arm64/ipxe.efi"] = pe(0xAA64)
    if name == "aavmf-pxe":
        server.kernel = server.kernel.replace(pe()[64:70], pe(0xAA64)[64:70])
    station = server.lan(Pinging(delay)).boot(persona, mac=MAC, uuid=bytes(16), ipxe=version)
    assert isinstance(station.outcome, Booted), (station.outcome, station.screen)
    expected = (VECTORS / f"{name}.txt").read_text().splitlines()[1:]
    assert station.story[-len(expected) :] == expected
    assert name == "undionly" or len(station.story) == len(expected)
