"""What a bare machine tells of itself: the UDP datagrams of our boot programs, and what acknowledges them.

The format is ours (docs/reference/reports.md). A report is one to sixteen datagrams, each complete in itself, so that
none needs IP fragments and none waits for another. Numbers are little-endian, as on the machines that send them:

    0    4       magic    "BWRP"
    4    uint8   version  1
    5    uint8   kind     1 report, 2 acknowledgement
    6    uint8   part     0..parts-1
    7    uint8   parts    1..16
    8    uint32  nonce    the sender's choice, the same in all parts of a report; comes back in the acknowledgement
    12   uint8   firmware 1 BIOS, 2 UEFI
    13   uint8   zero
    14   uint16  architecture  IANA Processor Architecture Types, as in DHCP option 93: 0 x86 BIOS, 7 x64 UEFI …
    16   uint16  length   of the whole datagram in octets
    18   uint16  zero
    20   items   each: uint16 type, uint16 length of its value, value

An item whose type is not known, or whose value does not have that type's shape, is kept as `Unknown`: a machine's
report is not lost for one odd disk. An acknowledgement is a head with kind 2 and may have items, too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, assert_never

from bootwire.wire.reader import WireError

PORT: Final = 6971  # UDP, the server's: next to bootinfo's; IANA has nothing registered there
MAGIC: Final = b"BWRP"
VERSION: Final = 1
LARGEST: Final = 1472  # octets: what an Ethernet frame of 1,500 octets leaves below IPv4 and UDP
PARTS: Final = 16  # a machine with 60 disks needs 6
ITEMS: Final = 256  # in one datagram: 1,452 octets hold no more than 363 empty ones

BIOS: Final = 1
UEFI: Final = 2

REPORT: Final = 1
ACKNOWLEDGEMENT: Final = 2

_HEAD = struct.Struct("<4sBBBBIBxHHxx")
_ITEM = struct.Struct("<HH")
_PXE = struct.Struct("<HBBB")
_LINK = struct.Struct("<IHH")
_NIC = struct.Struct("<BBHHBBBBHHH")
_CPUID = struct.Struct("<6I")
_REGISTER = struct.Struct("<IQ")
_RANGE = struct.Struct("<QQI")
_DISK = struct.Struct("<IHHQIHH")
_LABEL = struct.Struct("<IB")
_PARTITION = struct.Struct("<IIBBxxQQ")


# --- items: what is told ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Program:
    """Which program reports: its name and version, "hello 1"."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Mac:
    """The card's hardware address; 6 octets on Ethernet, at most 16 (PXE 2.1, MAC_ADDR)."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Pxe:
    """PXE API version (0x0201 is 2.1) and the UNDI's own version (PXE 2.1, UNDIROMID), zeros if not told."""

    api: int
    undi: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Link:
    """speed: bits per second, 0 if not told; mtu: octets; service: low half of UNDI ServiceFlags; name: "Ethernet"."""

    speed: int
    mtu: int
    service: int
    name: bytes


@dataclass(frozen=True, slots=True)
class Nic:
    """The card on its bus (PXENV_UNDI_GET_NIC_TYPE). bus: 2 PCI, 3 PnP, 4 CardBus; numbers as the bus has them."""

    bus: int
    revision: int
    vendor: int
    device: int
    device_class: tuple[int, int, int]
    slot: int
    sub_vendor: int
    sub_device: int


@dataclass(frozen=True, slots=True)
class Address:
    """Four octets each, in network order: the machine's own, and the server it would boot from."""

    own: bytes
    server: bytes


@dataclass(frozen=True, slots=True)
class Packet:
    """A DHCP message that the firmware kept. which: 1 DISCOVER, 2 ACK, 3 the boot server's reply (PXE 2.1 4.3)."""

    which: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Cpuid:
    """One answer of the x86 instruction."""

    leaf: int
    sub_leaf: int
    eax: int
    ebx: int
    ecx: int
    edx: int


@dataclass(frozen=True, slots=True)
class Register:
    """An Arm system register. number: op0 op1 CRn CRm op2 in 2, 3, 4, 4 and 3 bits; MIDR_EL1 is 0xC000."""

    number: int
    value: int


@dataclass(frozen=True, slots=True)
class CpuMode:
    """bits: 16, 32 or 64, of the mode that the program runs in; protected: CR0.PE, so under a V86 monitor if 16."""

    bits: int
    protected: bool


@dataclass(frozen=True, slots=True)
class Memory:
    """Ranges (base, octets, type) of the map; types are ACPI's: 1 usable, 2 reserved, 3 ACPI, 4 NVS (ACPI 15.4)."""

    ranges: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Disk:
    """number: as the firmware counts, 0x80 is the BIOS's first; sectors and sector_size: 0 if not told.

    flags: 1 removable, 2 told by the BIOS's extensions; cylinders heads spt: 0 where there is no geometry; name: "ATA",
    "VIRTIO", or a device path
    """

    number: int
    flags: int
    sector_size: int
    sectors: int
    cylinders: int
    heads: int
    spt: int
    name: bytes


@dataclass(frozen=True, slots=True)
class Label:
    """A disk's partition table. scheme: 0 none, 1 MBR, 2 GPT; identity: MBR signature (4 octets) or disk GUID (16)."""

    disk: int
    scheme: int
    identity: bytes


@dataclass(frozen=True, slots=True)
class Partition:
    """index: from 1, 5 is the first logical one of an MBR; start sectors: in the disk's sectors; flags: 0x80 active.

    kind: MBR type (1 octet) or GPT type GUID (16 octets); identity: GPT unique GUID, or empty; name: UTF-16LE, or empty
    """

    disk: int
    index: int
    flags: int
    start: int
    sectors: int
    kind: bytes
    identity: bytes = b""
    name: bytes = b""


@dataclass(frozen=True, slots=True)
class Smbios:
    """One structure with its strings, as the table has it, up to its double NUL or as far as there was room."""

    structure: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened, in words: "no answer from 192.0.2.1 in 62 s: going on with the local disk"."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Unknown:
    """Any other type, or a value without its type's shape. type: 0..65535."""

    type: int
    value: bytes


Item = (
    Program | Mac | Pxe | Link | Nic | Address | Packet | Cpuid | Register | CpuMode | Memory | Disk | Label
    | Partition | Smbios | Note | Unknown
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """One datagram of a report. architecture: 0..65535; firmware and nonce as in the head."""

    nonce: int
    firmware: int
    architecture: int
    items: tuple[Item, ...]
    part: int = 0
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The server has this part of this report. items: none today; senders pass over them."""

    nonce: int
    firmware: int = 0
    architecture: int = 0
    items: tuple[Item, ...] = ()
    part: int = 0
    parts: int = 1


Message = Report | Acknowledgement


def parse(datagram: bytes) -> Message:
    """Read one UDP payload, of any length and hostile. Raises WireError."""
    if len(datagram) < _HEAD.size:
        raise WireError("truncated head", len(datagram))
    magic, version, kind, part, parts, nonce, firmware, architecture, length = _HEAD.unpack_from(datagram)
    if magic != MAGIC:
        raise WireError("no report: another magic", 0)
    if version != VERSION:
        raise WireError(f"a report of version {version}, not {VERSION}", 4)
    if not part < parts <= PARTS:
        raise WireError(f"part {part} of {parts}", 6)
    if length != len(datagram) or length > LARGEST:
        raise WireError(f"{len(datagram)} octets that say they are {length}, of at most {LARGEST}", 16)
    if kind not in (REPORT, ACKNOWLEDGEMENT):
        raise WireError(f"kind {kind}", 5)
    items = _items(datagram)
    if kind == REPORT:
        return Report(nonce, firmware, architecture, items, part, parts)
    return Acknowledgement(nonce, firmware, architecture, items, part, parts)


def emit(message: Message) -> bytes:
    """Write one datagram; `parse(emit(m)) == m`. Raises ValueError where it has no room or a number no place."""
    body = bytearray()
    for item in message.items:
        number, value = _emit(item)
        try:
            body += _ITEM.pack(number, len(value)) + value
        except struct.error as error:
            raise ValueError(f"an item out of range: {error}") from None
    length = _HEAD.size + len(body)
    if length > LARGEST or len(message.items) > ITEMS or not message.part < message.parts <= PARTS:
        raise ValueError(f"{length} octets, {len(message.items)} items, part {message.part} of {message.parts}")
    kind = REPORT if isinstance(message, Report) else ACKNOWLEDGEMENT
    head = (MAGIC, VERSION, kind, message.part, message.parts, message.nonce, message.firmware, message.architecture)
    try:
        return _HEAD.pack(*head, length) + body
    except struct.error as error:
        raise ValueError(f"a number out of range: {error}") from None


# --- helpers ----------------------------------------------------------------------------------------------------


def _items(datagram: bytes) -> tuple[Item, ...]:
    items: list[Item] = []
    at = _HEAD.size
    while at < len(datagram):
        if len(datagram) - at < _ITEM.size:
            raise WireError("truncated item", at)
        number, length = _ITEM.unpack_from(datagram, at)
        if length > len(datagram) - at - _ITEM.size:
            raise WireError(f"item {number} of {length} octets reaches beyond the end", at)
        if len(items) == ITEMS:
            raise WireError(f"more than {ITEMS} items", at)
        at += _ITEM.size
        items.append(_item(number, datagram[at : at + length]))
        at += length
    return tuple(items)


def _item(number: int, value: bytes) -> Item:
    """The item, or Unknown where `value` is not what its type has; then it is written as it was read."""
    try:
        found = _read(number, value)
    except struct.error:
        return Unknown(number, value)
    return found if found is not None and _emit(found) == (number, value) else Unknown(number, value)


def _read(number: int, value: bytes) -> Item | None:
    match number:
        case 1:
            return Program(value)
        case 2:
            return Mac(value) if 0 < len(value) <= 16 else None
        case 3:
            api, *undi = _PXE.unpack(value)
            return Pxe(api, (undi[0], undi[1], undi[2]))
        case 4:
            speed, mtu, service = _LINK.unpack_from(value)
            return Link(speed, mtu, service, value[_LINK.size :])
        case 5:
            bus, revision, vendor, device, *device_class, _, slot, sub_vendor, sub_device = _NIC.unpack(value)
            a, b, c = device_class
            return Nic(bus, revision, vendor, device, (a, b, c), slot, sub_vendor, sub_device)
        case 6:
            return Address(value[:4], value[4:]) if len(value) == 8 else None
        case 7:
            return Packet(value[0], value[1:]) if value else None
        case 8:
            return Cpuid(*_CPUID.unpack(value))
        case 9:
            return Register(*_REGISTER.unpack(value))
        case 10:
            return CpuMode(value[0], value[1] != 0) if len(value) == 2 else None
        case 11:
            return Memory(tuple(_RANGE.iter_unpack(value)))
        case 12:
            disk, *rest = _DISK.unpack_from(value)
            flags, size, sectors, cylinders, heads, spt = rest
            return Disk(disk, flags, size, sectors, cylinders, heads, spt, value[_DISK.size :])
        case 13:
            disk, scheme = _LABEL.unpack_from(value)
            return Label(disk, scheme, value[_LABEL.size :])
        case 14:
            disk, index, scheme, flags, start, sectors = _PARTITION.unpack_from(value)
            tail = value[_PARTITION.size :]
            if scheme == 1:
                return Partition(disk, index, flags, start, sectors, tail) if len(tail) == 1 else None
            if scheme == 2 and len(tail) >= 32:
                return Partition(disk, index, flags, start, sectors, tail[:16], tail[16:32], tail[32:])
            return None
        case 15:
            return Smbios(value)
        case 16:
            return Note(value)
        case _:
            return None


def _emit(item: Item) -> tuple[int, bytes]:
    try:
        return _write(item)
    except struct.error as error:
        raise ValueError(f"a number out of range: {error}") from None


def _write(item: Item) -> tuple[int, bytes]:
    match item:
        case Program(text):
            return 1, text
        case Mac(octets):
            return 2, octets
        case Pxe(api, undi):
            return 3, _PXE.pack(api, *undi)
        case Link(speed, mtu, service, name):
            return 4, _LINK.pack(speed, mtu, service) + name
        case Nic(bus, revision, vendor, device, device_class, slot, sub_vendor, sub_device):
            return 5, _NIC.pack(bus, revision, vendor, device, *device_class, 0, slot, sub_vendor, sub_device)
        case Address(own, server):
            return 6, own + server
        case Packet(which, message):
            return 7, bytes((which,)) + message
        case Cpuid(leaf, sub_leaf, eax, ebx, ecx, edx):
            return 8, _CPUID.pack(leaf, sub_leaf, eax, ebx, ecx, edx)
        case Register(number, value):
            return 9, _REGISTER.pack(number, value)
        case CpuMode(bits, protected):
            return 10, bytes((bits, protected))
        case Memory(ranges):
            return 11, b"".join(_RANGE.pack(*one) for one in ranges)
        case Disk(number, flags, sector_size, sectors, cylinders, heads, spt, name):
            return 12, _DISK.pack(number, flags, sector_size, sectors, cylinders, heads, spt) + name
        case Label(disk, scheme, identity):
            return 13, _LABEL.pack(disk, scheme) + identity
        case Partition(disk, index, flags, start, sectors, kind, identity, name):
            scheme = 1 if len(kind) == 1 else 2
            return 14, _PARTITION.pack(disk, index, scheme, flags, start, sectors) + kind + identity + name
        case Smbios(structure):
            return 15, structure
        case Note(text):
            return 16, text
        case Unknown(number, value):
            return number, value
        case never:
            assert_never(never)
