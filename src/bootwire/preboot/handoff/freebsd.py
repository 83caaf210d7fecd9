"""A FreeBSD kernel for amd64 with its modules as they lie in memory when the kernel takes over.

The contract is that of the kernel's own loader: sys/amd64/amd64/locore.S (`btext`), stand/i386/libi386/bootinfo64.c
(the order in memory), stand/common/load_elf.c and load_elf_obj.c (how modules are laid out and described). The kernel
is linked at KERNBASE + its physical address; everything else follows it, page-aligned, in this order:

    kernel (with its symbols) · modules · records · environment · the records behind the memory map, once more

The last part is for starts where the memory map is known only when the machine runs (see trampoline.py).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bootwire.preboot.handoff import elf, modinfo
from bootwire.preboot.handoff.modinfo import Record, string, word
from bootwire.wire.reader import WireError

KERNBASE = 0xFFFFFFFF80000000  # sys/amd64/include/vmparam.h
PAGE = 4096  # octets
LOWEST = 0x110000  # physical address that the kernel must stay above: below it is the trampoline (trampoline.py)
HIGHEST = 1 << 30  # all of it lies below: what the page tables at entry reach (one gigabyte, as the loader's own do)
MAP_ENTRY = 20  # octets of one entry of the memory map: base, length, type (INT 15h E820)
MAP_ROOM = 128  # entries that fit where the map is filled in later; Linux' boot protocol allows for as many
MAX_MODULES = 1024

# sys/sys/reboot.h; the letters are those of boot(8), the variables those of loader(8) and sys/kern/subr_boot.c.
HOWTO = {
    "a": (0x1, "boot_askname"), "s": (0x2, "boot_single"), "r": (0x20, "boot_dfltroot"), "d": (0x40, "boot_ddb"),
    "v": (0x800, "boot_verbose"), "h": (0x1000, "boot_serial"), "C": (0x2000, "boot_cdrom"), "g": (0x8000, "boot_gdb"),
    "m": (0x10000, "boot_mute"), "p": (0x100000, "boot_pause"), "D": (0x20000000, "boot_multicons"),
}  # fmt: skip


class NotLoadable(ValueError):
    """This cannot be made into an image; the text says why, for a person."""


@dataclass(frozen=True, slots=True)
class Module:
    """Something to lie in memory with the kernel.

    kind: "" for kernel modules, whose ELF header tells; else the loader's type: "mfs_root", "md_image", …
    """

    name: str
    data: bytes
    kind: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """Where a memory map is still missing in the image, all physical addresses.

    at: of the record's data, `length_at` of its 32-bit length (now 0); tail: (address, octets) of the records that
    must lie behind it.
    """

    at: int
    length_at: int
    room: int
    tail: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Image:
    """Octets by physical address, ascending and page-aligned, and what the entry point wants to know.

    entry: virtual; modulep: where the records begin and kernend: the first free octet, both physical.
    """

    segments: tuple[tuple[int, bytes], ...]
    entry: int
    modulep: int
    kernend: int
    records: tuple[Record, ...]
    missing_map: MemoryMap | None

    def merged(self) -> tuple[int, bytes]:
        """All segments as one, with zeros between them."""
        start = self.segments[0][0]
        out = bytearray(self.kernend - start)
        for at, data in self.segments:
            out[at - start : at - start + len(data)] = data
        return start, bytes(out)


def is_kernel(data: bytes) -> bool:
    """Whether this looks like a FreeBSD kernel for amd64: an ELF program linked at KERNBASE. data: all or its head."""
    if data[:6] != b"\x7fELF\x02\x01" or len(data) < elf.HEADER:
        return False
    kind, machine, _, entry = struct.unpack_from("<HHIQ", data, 16)
    return kind == elf.EXECUTABLE and machine == elf.X86_64 and bool(entry >= KERNBASE)


def version(kernel: bytes) -> str:
    """ "13.2-RELEASE", as `uname -r` would say; "" if the kernel does not tell."""
    found = re.search(rb"FreeBSD (\d+\.\d+-[A-Z][A-Za-z0-9.-]{0,40})", kernel)
    return found[1].decode("ascii") if found else ""


def howto(flags: str, environment: Mapping[str, str]) -> int:
    """The boot flags from letters ("-sv") and from the boot_* variables that are set to anything but NO."""
    letters = {letter for word in flags.split() if word.startswith("-") for letter in word[1:]}
    value = 0
    for letter, (bit, name) in HOWTO.items():
        if letter in letters or environment.get(name, "NO").upper() != "NO":
            value |= bit
    return value


def build(
    kernel: bytes,
    modules: Sequence[Module] = (),
    environment: Mapping[str, str] | None = None,
    howto: int = 0,
    memory_map: Sequence[tuple[int, int, int]] | None = None,
    name: str = "/boot/kernel/kernel",
) -> Image:
    """Lay everything out. memory_map: (base, length, type) as E820 has them; None: filled in when the machine runs.

    environment: the kernel's, as kenv(1) shows it. Raises NotLoadable.
    """
    if len(modules) > MAX_MODULES:
        raise NotLoadable(f"{len(modules)} modules, more than {MAX_MODULES}")
    laid = _kernel(kernel, name)
    files = [laid]
    free = laid.end
    for module in modules:
        placed = _module(module, _page(free))
        files.append(placed)
        free = placed.end
        if free > HIGHEST:
            raise NotLoadable(
                f"with {module.name} it would end at {free >> 20} MiB, above the 1 GiB that the kernel sees at first"
            )
    packed = None if memory_map is None else b"".join(struct.pack("<QQI", *entry) for entry in memory_map)
    text = _environment(environment or {})
    modulep = _page(free)

    def told(envp: int, kernend: int) -> tuple[list[Record], list[Record]]:
        about = (
            Record(modinfo.HOWTO, struct.pack("<I", howto)), word(modinfo.ENVP, envp), word(modinfo.KERNEND, kernend),
            word(modinfo.MODULEP, modulep),
        )  # fmt: skip
        return [*laid.records, *about], [record for file in files[1:] for record in file.records]

    head, tail = (modinfo.emit(part) for part in told(0, 0))
    map_at = modulep + len(head)  # the END of the head stands where the map's own header will stand
    room = MAP_ROOM if packed is None else len(packed) // MAP_ENTRY
    envp = _page(map_at + room * MAP_ENTRY + 8 + len(tail))
    tail_at = _page(envp + len(text))
    kernend = _page(tail_at + len(tail)) if packed is None else tail_at
    if kernend > HIGHEST:
        raise NotLoadable(f"it would end at {kernend >> 20} MiB, above the 1 GiB that the kernel sees at first")
    first, rest = told(envp, kernend)
    records = [*first, Record(modinfo.SMAP, packed or b""), *rest]
    segments = [part for file in files for part in file.segments]
    segments += [(modulep, modinfo.emit(records)), (envp, text)]
    missing = None
    if packed is None:
        segments.append((tail_at, tail))
        missing = MemoryMap(map_at, map_at - 4, room, (tail_at, len(tail)))
    return Image(tuple(segments), laid.entry, modulep, kernend, tuple(records), missing)


@dataclass(frozen=True, slots=True)
class _File:
    segments: tuple[tuple[int, bytes], ...]
    end: int  # physical address after it
    records: tuple[Record, ...]
    entry: int = 0


def _page(address: int) -> int:
    return -(-address // PAGE) * PAGE


def _up(address: int, align: int) -> int:
    return -(-address // align) * align if align > 1 else address


def _environment(variables: Mapping[str, str]) -> bytes:
    out = []
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name + value:
            raise NotLoadable(f"{name!r} cannot be a variable of the kernel environment")
        out.append(f"{name}={value}".encode() + b"\0")
    return b"".join(out) + b"\0"


def _read(data: bytes, what: str) -> elf.Elf:
    try:
        file = elf.parse(data)
    except WireError as error:
        raise NotLoadable(f"{what}: {error.what}") from None
    if file.machine != elf.X86_64:
        raise NotLoadable(f"{what} is for another machine than amd64 (ELF machine {file.machine})")
    return file


def _kernel(data: bytes, name: str) -> _File:
    file = _read(data, "the kernel")
    if file.kind != elf.EXECUTABLE:
        raise NotLoadable("this ELF file is a module or a library, not a kernel; the kernel comes first")
    parts = [segment for segment in file.segments if segment.kind == elf.LOAD and segment.size]
    if not parts or any(segment.address < KERNBASE for segment in parts):
        raise NotLoadable("this ELF program is no FreeBSD kernel for amd64: it is not linked at the kernel's address")
    # p_paddr is not to be trusted: kernels are linked with whatever the linker script left there.
    start = min(segment.address for segment in parts) - KERNBASE
    end = max(segment.address + segment.size for segment in parts) - KERNBASE
    if start < LOWEST or end > HIGHEST:
        raise NotLoadable(f"the kernel wants to lie at {start:#x}-{end:#x}, outside what can be given")
    if not any(segment.address <= file.entry < segment.address + segment.size for segment in parts):
        raise NotLoadable("the kernel's entry point is outside of it")
    base = start // PAGE * PAGE
    memory = bytearray(end - base)
    for segment in parts:
        at = segment.address - KERNBASE - base
        memory[at : at + segment.file_size] = file.contents(segment)
    symbols_at = base + _up(len(memory), 8)
    symbols = _symbols(file, symbols_at)
    memory += bytes(symbols_at - base - len(memory)) + symbols
    records = [
        string(modinfo.NAME, name), string(modinfo.TYPE, "elf kernel"),
        word(modinfo.ADDR, start), word(modinfo.SIZE, base + len(memory) - start),
        Record(modinfo.ELFHDR, data[: elf.HEADER]),
    ]  # fmt: skip
    if symbols:
        records += [word(modinfo.SSYM, symbols_at), word(modinfo.ESYM, symbols_at + len(symbols))]
    records += _described(file)
    return _File(((base, bytes(memory)),), base + len(memory), tuple(records), file.entry)


def _symbols(file: elf.Elf, at: int) -> bytes:
    """Symbol table and strings as ddb and the kernel's linker want them: each behind its 64-bit size, padded to 8."""
    for section in file.sections:
        if section.kind == elf.SYMTAB and section.size and 0 < section.link < len(file.sections):
            strings = file.sections[section.link]
            out = b""
            for part in (file.contents(section), file.contents(strings)):
                out += struct.pack("<Q", len(part)) + part + bytes(-len(part) % 8)
            return out
    return b""


def _described(file: elf.Elf) -> list[Record]:
    """Section headers, constructors and the dynamic section, where there are any."""
    records = []
    if file.sections:
        records.append(Record(modinfo.SHDR, b"".join(section.emit() for section in file.sections)))
    if number := file.section(b".ctors"):
        records.append(word(modinfo.CTORS_ADDR, file.sections[number].address))
        records.append(word(modinfo.CTORS_SIZE, file.sections[number].size))
    records += [word(modinfo.DYNAMIC, part.address) for part in file.segments if part.kind == elf.DYNAMIC][:1]
    return records


def _module(module: Module, at: int) -> _File:
    if module.kind:
        body, kind, about = module.data, module.kind, list[Record]()
    else:
        file = _read(module.data, module.name)
        if file.kind == elf.RELOCATABLE:
            body, kind, about = _object(file, module.name, at)
        elif file.kind == elf.SHARED:
            body, kind, about = _shared(file, module.name, at)
        else:
            raise NotLoadable(f"{module.name} is an ELF program, not a kernel module")
    if not body:
        raise NotLoadable(f"{module.name} is empty")
    records = [string(modinfo.NAME, module.name), string(modinfo.TYPE, kind)]
    if module.arguments:
        records.append(string(modinfo.ARGS, module.arguments))
    records += [word(modinfo.ADDR, at), word(modinfo.SIZE, len(body)), *about]
    return _File(((at, body),), at + len(body), tuple(records))


_TAKES_MEMORY = (elf.PROGBITS, elf.NOBITS, elf.UNWIND)


def _object(file: elf.Elf, name: str, base: int) -> tuple[bytes, str, list[Record]]:
    """A relocatable module, as amd64 has them: sections one after another, then symbols, names and relocations.

    The kernel relocates it itself; it finds each part by the address in the section headers that we hand over.
    """
    parts = file.sections
    tables = [number for number, part in enumerate(parts) if part.kind == elf.SYMTAB]
    if len(tables) != 1:
        raise NotLoadable(f"{name} has {len(tables)} symbol tables; a kernel module has one (was it stripped?)")
    strings = parts[tables[0]].link
    named = (strings, file.names)
    if not all(0 < number < len(parts) and parts[number].kind == elf.STRTAB for number in named):
        raise NotLoadable(f"{name} has no names for its symbols or sections")
    order = [n for n, part in enumerate(parts) if part.size and part.kind in _TAKES_MEMORY and part.flags & elf.ALLOC]
    order += [number for number in (tables[0], strings, file.names) if number not in order]
    for number, part in enumerate(parts):
        if part.kind in (elf.REL, elf.RELA) and part.info < len(parts) and parts[part.info].flags & elf.ALLOC:
            order.append(number)
    placed: dict[int, int] = {}
    end = base
    for number in dict.fromkeys(order):
        placed[number] = _up(end, parts[number].align)
        end = placed[number] + parts[number].size
        if end > HIGHEST:
            raise NotLoadable(f"{name} would end above the 1 GiB that the kernel sees at first")
    memory = bytearray(end - base)
    for number, at in placed.items():
        data = file.contents(parts[number])
        memory[at - base : at - base + len(data)] = data
    headers = b""
    for number, part in enumerate(parts):
        fields = list(struct.unpack("<IIQQQQIIQQ", part.emit()))
        fields[3] = placed.get(number, 0)
        headers += struct.pack("<IIQQQQIIQQ", *fields)
    about = [Record(modinfo.ELFHDR, file.data[: elf.HEADER]), Record(modinfo.SHDR, headers)]
    return bytes(memory), "elf obj module", about


def _shared(file: elf.Elf, name: str, base: int) -> tuple[bytes, str, list[Record]]:
    """A module that is a shared object: its segments at their distance from the start, then its symbols."""
    parts = [segment for segment in file.segments if segment.kind == elf.LOAD and segment.size]
    end = max((segment.address + segment.size for segment in parts), default=0)
    if not end or base + end > HIGHEST:
        raise NotLoadable(f"{name} has nothing to load or does not fit below 1 GiB")
    memory = bytearray(_up(end, 8))
    for segment in parts:
        memory[segment.address : segment.address + segment.file_size] = file.contents(segment)
    symbols = _symbols(file, base + len(memory))
    about = [Record(modinfo.ELFHDR, file.data[: elf.HEADER])]
    if symbols:
        start = base + len(memory)
        about += [word(modinfo.SSYM, start), word(modinfo.ESYM, start + len(symbols))]
    return bytes(memory) + symbols, "elf module", [*about, *_described(file)]
