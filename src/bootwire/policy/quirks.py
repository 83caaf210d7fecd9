"""What firmware does against the book, as data: who was seen doing it, and what we do about it.

A quirk that a packet shows is named in `Client.quirks` and so reaches the journal. How strange octets are read is the
wire's business; what they are taken to mean is written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quirk:
    """name: a stable key; does: what firmware does; answer: what we do; seen: which firmware, reported where."""

    name: str
    does: str
    answer: str
    seen: str


ARCH_9_IS_X64 = Quirk(
    "arch-9-is-x64",
    "sends architecture 9 or 17 (EFI byte code) or 8 (Xscale) from an x64 machine",
    "x64 loaders",
    "RFC 4578 as printed swaps 7 and 9 (erratum 4624); Proxmox virtual machines, linuxserver/docker-netbootxyz issue 8",
)
ARCH_2_IS_IA32 = Quirk(
    "arch-2-is-ia32",
    "sends architecture 2 (Itanium) from a 32-bit UEFI laptop",
    "i386 loaders",
    "linuxserver/docker-netbootxyz issue 8",
)
ARCH_4_IS_BIOS = Quirk(
    "arch-4-is-bios",
    "sends the deprecated architectures 4 (Arc x86) or 5 (Intel Lean Client)",
    "BIOS loaders",
    "tinkerbell/smee's architecture table treats both as BIOS",
)
NO_MACHINE_ID = Quirk(
    "no-machine-id",
    "leaves option 97 out although RFC 4578 section 2.3 demands it",
    "not required",
    "Intel X552/X557 option ROM of 2015, danderson/pixiecore issue 21",
)
ODD_MACHINE_ID = Quirk(
    "odd-machine-id",
    "sends option 97 of another length or type than RFC 4578 section 2.3 has",
    "echoed as it came",
    "old Intel option ROMs; Raspberry Pi",
)
ARCH_DISAGREES = Quirk(
    "arch-disagrees",
    "names another architecture in option 60 than in option 93",
    "option 93 counts",
    "ipxe/ipxe issue 1527; Microsoft KB 932447",
)
HUAWEI_VENDOR = Quirk(
    "huawei-vendor-class",
    "calls itself HW-Client instead of PXEClient",
    "answered with the same vendor class",
    "Huawei servers; dnsmasq(8) --dhcp-pxe-vendor",
)
GUID_ADDRESS = Quirk(
    "guid-as-hardware-address",
    "puts a GUID where the MAC address belongs",
    "echoed whole; file names carry no machine",
    "EDK2 PxeBcDhcp4.c, Mode.SendGUID",
)
POSES_AS_UEFI = Quirk(
    "u-boot-poses-as-uefi",
    "sends UEFI's vendor class and architecture, but takes nothing from a ProxyDHCP offer",
    "silence: only the network's own DHCP server can help it",
    "u-boot/u-boot boot/bootmeth_efi.c, net/bootp.c (CONFIG_SERVERIP_FROM_PROXYDHCP is off by default)",
)

QUIRKS: tuple[Quirk, ...] = (
    ARCH_9_IS_X64, ARCH_2_IS_IA32, ARCH_4_IS_BIOS, NO_MACHINE_ID, ODD_MACHINE_ID, ARCH_DISAGREES, HUAWEI_VENDOR,
    GUID_ADDRESS, POSES_AS_UEFI,
)  # fmt: skip

ARCHITECTURE_QUIRKS: Mapping[int, Quirk] = {
    2: ARCH_2_IS_IA32, 4: ARCH_4_IS_BIOS, 5: ARCH_4_IS_BIOS, 8: ARCH_9_IS_X64, 9: ARCH_9_IS_X64, 17: ARCH_9_IS_X64,
}  # fmt: skip

VENDOR_CLASSES: tuple[bytes, ...] = (b"PXEClient", b"HW-Client")  # the second: HUAWEI_VENDOR

# Raspberry Pi boot ROMs are architecture 0 and look like an Intel option ROM but for these.
RASPBERRY_PREFIXES = (
    "b8:27:eb", "dc:a6:32", "e4:5f:01", "28:cd:c1", "d8:3a:dd", "2c:cf:67",
)  # fmt: skip
"""MAC prefixes of Raspberry Pi (Trading) Ltd and the Foundation in IEEE's OUI registry."""
RASPBERRY_MACHINE_IDS = (b"\0RPi", b"\0" + b"\x44" * 16)
"""How option 97 starts: Pi 4 and 5 (rpi-eeprom DHCP_OPTION97), Pi 3 boot ROM."""
