"""What machines are: reports folded into records, with what changed, and looked up by name by whoever has rules.

`hardware` reads a report (wire.report), `fold` puts it into the machine's record, `lookup` finds one value in it:
`cpu.vendor`, `memory`, `disk`. No clock is read: moments are passed in, in seconds since the Unix epoch.

A report says what a program on the machine said, and nobody proved it: rules may choose by it, secrets may not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from bootwire.policy.cpu_features import features
from bootwire.wire import report, smbios
from bootwire.wire.reader import WireError
from bootwire.wire.text import printable

CHANGES = 32  # of a record; the oldest go first


@dataclass(frozen=True, slots=True)
class Cpu:
    """vendor: "GenuineIntel", "AuthenticAMD", "arm 0x41"; family, model and stepping as Linux counts them.

    threads: logical processors of the first package as CPUID's leaf 1 tells them, 0 if it does not; bits: 32 or 64,
    the widest that it can; features: as in /proc/cpuinfo
    """

    vendor: str = ""
    family: int = 0
    model: int = 0
    stepping: int = 0
    brand: str = ""
    threads: int = 0
    bits: int = 0
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Partition:
    """start and size in octets from the disk's beginning; kind: "0x83" or a GPT type GUID; name: GPT's, printable."""

    index: int
    start: int
    size: int
    kind: str
    name: str = ""
    active: bool = False


@dataclass(frozen=True, slots=True)
class Disk:
    """number: the firmware's, 0x80 is the BIOS's first; size in octets, 0 if not told; table: "mbr", "gpt" or ""."""

    number: int
    size: int
    sector_size: int
    name: str = ""
    removable: bool = False
    table: str = ""
    identity: str = ""
    partitions: tuple[Partition, ...] = ()


@dataclass(frozen=True, slots=True)
class Hardware:
    """What one report says. "" and 0 for what it does not say.

    machine       MAC, lower case with colons
    firmware      "bios" or "uefi"; architecture: DHCP option 93's number
    memory        installed octets (SMBIOS), else those the map calls usable; memory_usable: those of the map
    nic           "8086:100e" where it is on PCI; link_speed: bits per second
    pxe undi      versions: "2.1", "3.1.0"
    address server   dotted: its own at the report, and where it booted from
    mode          bits of the mode that the program ran in: 16, 32 or 64
    program       who reported: "hello 1"
    """

    machine: str
    firmware: str = ""
    architecture: int = -1
    manufacturer: str = ""
    product: str = ""
    serial: str = ""
    uuid: str = ""
    board: str = ""
    bios_vendor: str = ""
    bios_version: str = ""
    cpu: Cpu = Cpu()
    memory: int = 0
    memory_usable: int = 0
    disks: tuple[Disk, ...] = ()
    nic: str = ""
    link_speed: int = 0
    pxe: str = ""
    undi: str = ""
    address: str = ""
    server: str = ""
    mode: int = 0
    program: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """A record: the last report, when the first and the last came (Unix seconds), and what changed between them."""

    hardware: Hardware
    first_seen: float
    last_seen: float
    reports: int = 1
    changes: tuple[tuple[float, str], ...] = ()


Value = str | int | tuple[str, ...] | tuple[int, ...]


def hardware(parts: Sequence[report.Report]) -> Hardware | None:
    """What the parts of one report say together, read leniently; None if no part tells a MAC."""
    items = [item for part in parts for item in part.items]
    mac = next((item.octets for item in items if isinstance(item, report.Mac)), b"")
    if not mac:
        return None
    first = parts[0]
    found = Hardware(
        machine=mac.hex(":"),
        firmware={report.BIOS: "bios", report.UEFI: "uefi"}.get(first.firmware, ""),
        architecture=first.architecture,
        cpu=_cpu(items),
        disks=_disks(items),
        mode=next((item.bits for item in items if isinstance(item, report.CpuMode)), 0),
        memory_usable=sum(
            size for item in items if isinstance(item, report.Memory) for _, size, kind in item.ranges if kind == 1
        ),
    )
    found = _identity(found, items)
    for item in items:
        match item:
            case report.Program(text):
                found = replace(found, program=printable(text, 64))
            case report.Pxe(api, undi):
                versions = ".".join(map(str, undi)) if any(undi) else ""
                found = replace(found, pxe=f"{api >> 8}.{api & 0xFF}", undi=versions)
            case report.Link(speed=speed):
                found = replace(found, link_speed=speed)
            case report.Nic(bus=2, vendor=vendor, device=device):
                found = replace(found, nic=f"{vendor:04x}:{device:04x}")
            case report.Address(own, server):
                found = replace(found, address=_dotted(own), server=_dotted(server))
            case _:
                pass
    return replace(found, memory=found.memory or found.memory_usable)


def notes(parts: Iterable[report.Report]) -> tuple[str, ...]:
    """What the program says in words, printable."""
    return tuple(printable(item.text) for part in parts for item in part.items if isinstance(item, report.Note))


def fold(record: Machine | None, now: Hardware, when: float) -> tuple[Machine, tuple[str, ...]]:
    """The record with this report in it, and what changed since the one before; () for a new machine or no change."""
    if record is None:
        return Machine(now, when, when), ()
    changed = differences(record.hardware, now)
    kept = (*record.changes, *((when, text) for text in changed))[-CHANGES:]
    return Machine(now, record.first_seen, max(when, record.last_seen), record.reports + 1, kept), changed


def differences(before: Hardware, after: Hardware) -> tuple[str, ...]:
    """What changed in the machine itself, each as "memory: 8 GiB, was 16 GiB". Its address may change."""
    lines: list[str] = []
    for name, text in _TOLD:
        old, new = text(before), text(after)
        if old != new:
            lines.append(f"{name}: {new or 'none'}, was {old or 'none'}")
    old_disks = {disk.number: disk for disk in before.disks}
    new_disks = {disk.number: disk for disk in after.disks}
    for number in sorted(old_disks.keys() | new_disks.keys()):
        was, is_now = old_disks.get(number), new_disks.get(number)
        if was == is_now:
            continue
        label = f"disk {number:#x}"
        if is_now is None or was is None:
            lines.append(f"{label}: {'gone' if is_now is None else f'new, {size_text(is_now.size)}'}")
        elif was.size != is_now.size or was.name != is_now.name:
            old, new = (f"{size_text(disk.size)} {disk.name}".strip() for disk in (was, is_now))
            lines.append(f"{label}: {new}, was {old}")
        else:
            lines.append(f"{label}: another partition table")
    return tuple(lines)


def lookup(machine: Hardware, path: str) -> Value | None:
    """The value that a rule's name means; None for a name that means nothing (`NAMES` are those that do).

    Sizes are octets. `disk` is the size of each disk, `disk.name` the name of each, so that a rule may ask whether any
    fits: `disk >= 100GiB`.
    """
    found = NAMES.get(path)
    return found(machine) if found else None


NAMES: Mapping[str, Callable[[Hardware], Value]] = {
    "machine": lambda m: m.machine,
    "firmware": lambda m: m.firmware,
    "architecture": lambda m: m.architecture,
    "manufacturer": lambda m: m.manufacturer,
    "product": lambda m: m.product,
    "serial": lambda m: m.serial,
    "uuid": lambda m: m.uuid,
    "board": lambda m: m.board,
    "bios.vendor": lambda m: m.bios_vendor,
    "bios.version": lambda m: m.bios_version,
    "cpu.vendor": lambda m: m.cpu.vendor,
    "cpu.family": lambda m: m.cpu.family,
    "cpu.model": lambda m: m.cpu.model,
    "cpu.stepping": lambda m: m.cpu.stepping,
    "cpu.brand": lambda m: m.cpu.brand,
    "cpu.threads": lambda m: m.cpu.threads,
    "cpu.bits": lambda m: m.cpu.bits,
    "cpu.features": lambda m: m.cpu.features,
    "memory": lambda m: m.memory,
    "memory.usable": lambda m: m.memory_usable,
    "disk": lambda m: tuple(disk.size for disk in m.disks),
    "disk.name": lambda m: tuple(disk.name for disk in m.disks),
    "disk.table": lambda m: tuple(disk.table for disk in m.disks),
    "disks": lambda m: len(m.disks),
    "nic": lambda m: m.nic,
    "link.speed": lambda m: m.link_speed,
}
"""What rules can match on."""


def size_text(octets: int) -> str:
    """For people: "16 GiB", "8.5 GiB", "512 octets"."""
    unit = "octets"
    value = float(octets)
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"


def summary(machine: Hardware) -> str:
    """In one line: what it is, its processor, memory and disks."""
    what = " ".join(part for part in (machine.manufacturer, machine.product) if part) or "a machine without a name"
    disks = ", ".join(size_text(disk.size) for disk in machine.disks) or "none"
    cpu = machine.cpu.brand or machine.cpu.vendor or "an unknown processor"
    return printable(f"{what}; {cpu}; {size_text(machine.memory)} memory; disks: {disks}")


def as_text(machine: Hardware) -> str:
    """All of it as one line of JSON, for whoever keeps records; `from_text` reads it again."""
    return json.dumps(asdict(machine), separators=(",", ":"))


def from_text(text: str) -> Hardware:
    """What `as_text` wrote, by this version or one before. Raises ValueError."""
    try:
        told = {**json.loads(text)}
        cpu = {**told.pop("cpu", {})}
        disks = [{**disk} for disk in told.pop("disks", ())]
        return Hardware(
            **told,
            cpu=Cpu(**{**cpu, "features": tuple(cpu.get("features", ()))}),
            disks=tuple(
                Disk(**{**disk, "partitions": tuple(Partition(**one) for one in disk.get("partitions", ()))})
                for disk in disks
            ),
        )
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no record of a machine: {error}") from None


# --- helpers ----------------------------------------------------------------------------------------------------

_TOLD: tuple[tuple[str, Callable[[Hardware], str]], ...] = (
    ("firmware", lambda m: m.firmware),
    ("manufacturer", lambda m: m.manufacturer),
    ("product", lambda m: m.product),
    ("serial", lambda m: m.serial),
    ("uuid", lambda m: m.uuid),
    ("board", lambda m: m.board),
    ("bios", lambda m: f"{m.bios_vendor} {m.bios_version}".strip()),
    ("cpu", lambda m: m.cpu.brand or m.cpu.vendor),
    ("cpu signature", lambda m: f"{m.cpu.family}/{m.cpu.model}/{m.cpu.stepping}"),
    ("cpu threads", lambda m: str(m.cpu.threads)),
    ("cpu features", lambda m: " ".join(m.cpu.features)),
    ("memory", lambda m: size_text(m.memory)),
    ("card", lambda m: m.nic),
)


def _dotted(octets: bytes) -> str:
    return ".".join(map(str, octets)) if any(octets) else ""


def _text(octets: bytes) -> str:
    return printable(octets.rstrip(b"\0 "), 128)


def _cpu(items: Sequence[report.Item]) -> Cpu:
    leaves = {(item.leaf, item.sub_leaf): item for item in items if isinstance(item, report.Cpuid)}
    if (zero := leaves.get((0, 0))) is None:
        return _arm(items)
    vendor = b"".join(register.to_bytes(4, "little") for register in (zero.ebx, zero.edx, zero.ecx))
    cpu = Cpu(vendor=_text(vendor), bits=32)
    if (one := leaves.get((1, 0))) is not None:
        family, model = one.eax >> 8 & 15, one.eax >> 4 & 15
        if family in (6, 15):
            model |= (one.eax >> 16 & 15) << 4
        family += (one.eax >> 20 & 255) if family == 15 else 0
        threads = one.ebx >> 16 & 255 if one.edx >> 28 & 1 else 1
        cpu = replace(cpu, family=family, model=model, stepping=one.eax & 15, threads=threads)
    names = tuple(name for answer in leaves.values() for name in features(answer))
    strings = [leaves.get((0x8000_0002 + i, 0)) for i in range(3)]
    brand = b"".join(
        register.to_bytes(4, "little")
        for answer in strings
        if answer is not None
        for register in (answer.eax, answer.ebx, answer.ecx, answer.edx)
    )
    brand_text = " ".join(_text(brand.split(b"\0")[0]).split())
    return replace(cpu, features=names, brand=brand_text, bits=64 if "lm" in names else 32)


_MIDR = 0xC000  # MIDR_EL1: op0 3, op1 0, CRn 0, CRm 0, op2 0 (Arm ARM D19.2)


def _arm(items: Sequence[report.Item]) -> Cpu:
    for item in items:
        if isinstance(item, report.Register) and item.number == _MIDR:
            value = item.value
            return Cpu(f"arm {value >> 24 & 255:#04x}", value >> 16 & 15, value >> 4 & 0xFFF, value & 15, bits=64)
    return Cpu()


def _disks(items: Sequence[report.Item]) -> tuple[Disk, ...]:
    labels = {item.disk: item for item in items if isinstance(item, report.Label)}
    found: dict[int, Disk] = {}
    for item in items:
        if not isinstance(item, report.Disk):
            continue
        sector = item.sector_size or 512
        label = labels.get(item.number)
        found[item.number] = Disk(
            number=item.number,
            size=item.sectors * sector,
            sector_size=sector,
            name=_text(item.name),
            removable=bool(item.flags & 1),
            table={1: "mbr", 2: "gpt"}.get(label.scheme, "") if label else "",
            identity=_identifier(label.identity) if label else "",
            partitions=tuple(
                _partition(one, sector)
                for one in items
                if isinstance(one, report.Partition) and one.disk == item.number
            ),
        )
    return tuple(found.values())


def _partition(item: report.Partition, sector: int) -> Partition:
    kind = f"{item.kind[0]:#04x}" if len(item.kind) == 1 else _identifier(item.kind)
    name = printable(item.name.decode("utf-16-le", "replace").split("\0")[0], 72)
    active = len(item.kind) == 1 and bool(item.flags & 0x80)
    return Partition(item.index, item.start * sector, item.sectors * sector, kind, name, active)


def _identifier(octets: bytes) -> str:
    """An MBR signature as fdisk writes it, a GUID as everybody does."""
    if len(octets) == 4:
        return f"{int.from_bytes(octets, 'little'):#010x}" if any(octets) else ""
    return smbios.uuid(smbios.Structure(smbios.SYSTEM, bytes(8) + octets))


def _identity(found: Hardware, items: Sequence[report.Item]) -> Hardware:
    for item in items:
        if not isinstance(item, report.Smbios):
            continue
        try:
            one = smbios.parse(item.structure)
        except WireError:
            continue
        match one.type:
            case smbios.BIOS:
                found = replace(found, bios_vendor=_text(one.string(4)), bios_version=_text(one.string(5)))
            case smbios.SYSTEM:
                found = replace(
                    found,
                    manufacturer=_text(one.string(4)),
                    product=_text(one.string(5)),
                    serial=_text(one.string(7)),
                    uuid=smbios.uuid(one),
                )
            case smbios.BASEBOARD if not found.board:
                found = replace(found, board=f"{_text(one.string(4))} {_text(one.string(5))}".strip())
            case smbios.MEMORY_DEVICE:
                found = replace(found, memory=found.memory + smbios.memory_octets(one))
            case _:
                pass
    return found
