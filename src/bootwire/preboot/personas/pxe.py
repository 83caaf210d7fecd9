"""What PXE clients have in common (PXE 2.1 section 2.2): option 43, the question to a boot server, programs."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bootwire.engine import Ns
from bootwire.engine import dhcp_client as dhcp
from bootwire.policy import offers
from bootwire.preboot.personas.steps import Fetched, Image
from bootwire.wire import dhcp4
from bootwire.wire.dhcp4 import Message, Options, Pxe


@dataclass(frozen=True, slots=True)
class Cached:
    """What firmware leaves to the program it starts (PXENV_GET_CACHED_INFO, EFI_PXE_BASE_CODE_MODE).

    directory: "tftp://192.0.2.1/52-54-00-12-34-56/x86_64/", where the program came from
    """

    ack: Message
    proxy: Message | None
    directory: str


def asks_for_item(pxe: Pxe, kind: int, *, multicast_first: bool) -> list[tuple[str, int]]:
    """Where to send a boot server request for items of `kind`: (address, port), in the order tried.

    multicast_first: EDK2 and Intel's ROM go by the bits in order (multicast, broadcast, list); iPXE tries the list only
    if the bits leave nothing else (pxebs_start, dhcp.c).
    """
    control = pxe.control or 0
    listed = [(address, dhcp4.PXE_PORT) for type_, to in pxe.servers if type_ == kind for address in to]
    ways: list[tuple[str, int]] = []
    if not control & dhcp4.NO_MULTICAST:
        ways.append((pxe.multicast or "0.0.0.0", dhcp4.PXE_PORT))
    if not control & dhcp4.NO_BROADCAST:
        ways.append((dhcp.EVERYONE, dhcp4.SERVER_PORT))
    return ways[:1] if ways and multicast_first else ways + listed


def item_inquiry(
    machine_mac: bytes,
    xid: int,
    address: str,
    options: Options,
    item: int,
    to: tuple[str, int],
    *,
    waits: tuple[Ns, ...],
    port: int = dhcp4.CLIENT_PORT,
) -> dhcp.Inquiry:
    """The question for boot item `item`, layer 0 (PXE 2.1 section 2.2.5): option 43.71 goes last but before END."""
    asked = (*options, (dhcp4.VENDOR_SPECIFIC, dhcp4.emit_pxe(Pxe(item=(item, 0)))))
    message = dhcp.request(machine_mac, xid, asked, ciaddr=address)

    def accepts(heard: dhcp.Heard) -> bool:
        answer = offers.vendor(heard.message).item
        return heard.message.type == dhcp4.ACK and answer is not None and answer[0] == item

    return dhcp.Inquiry(lambda _: message, to[0], to_port=to[1], port=port, waits=waits, accepts=accepts)


def image(name: str, url: str, got: Fetched) -> Image:
    """A fetched file as an image."""
    return Image(name, url, got.octets, got.sha256, got.data)


# --- programs ---------------------------------------------------------------------------------------------------

PE_MACHINES = {  # PE/COFF machine type by option 93 (UEFI 2.10 section 2.1.1; IANA processor architecture types)
    6: 0x014C, 7: 0x8664, 9: 0x8664, 10: 0x01C2, 11: 0xAA64, 25: 0x5032, 27: 0x5064, 37: 0x6232, 39: 0x6264,
    15: 0x014C, 16: 0x8664, 18: 0x01C2, 19: 0xAA64, 26: 0x5032, 28: 0x5064, 38: 0x6232, 40: 0x6264,
}  # fmt: skip


def pe_machine(data: bytes) -> int | None:
    """The machine type of a PE image, None if it is none."""
    if data[:2] != b"MZ" or len(data) < 64:
        return None
    at: int = struct.unpack_from("<I", data, 60)[0]
    if len(data) < at + 6 or data[at : at + 4] != b"PE\0\0":
        return None
    kind: int = struct.unpack_from("<H", data, at + 4)[0]
    return kind


def is_linux(data: bytes) -> bool:
    """A kernel with the x86 boot protocol ("HdrS", Linux Documentation/arch/x86/boot.rst) or an arm64/riscv Image."""
    return data[0x202:0x206] == b"HdrS" or data[0x38:0x3C] in (b"ARM\x64", b"RSC\x05")


def family(program: Image) -> str:
    """Which loader a file is: "ipxe", "pxelinux", "lpxelinux", "grub", or "" (not one that we can follow).

    By its name, as people read it: the builds themselves are compressed and do not say.
    """
    base = program.url.rsplit("/", 1)[-1].lower()
    for prefix, name in _LOADERS:
        if base.startswith(prefix):
            return name
    return ""


_LOADERS = (
    ("undionly", "ipxe"), ("ipxe", "ipxe"), ("snponly", "ipxe"),
    ("pxelinux", "pxelinux"), ("lpxelinux", "lpxelinux"), ("grub", "grub"),
)  # fmt: skip
