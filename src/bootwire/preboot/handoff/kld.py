"""What FreeBSD kernels and modules say of themselves: the modules inside, and those that they depend on.

Each file has a linker set `set_modmetadata_set` of pointers to mod_metadata, which are an int version, an int type, a
pointer to data and one to a name (sys/sys/module.h). In a module for amd64, a relocatable file, all of these pointers
are relocations; in a kernel they are addresses. Total and bounded: what cannot be followed is left out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bootwire.preboot.handoff import elf
from bootwire.wire.reader import WireError

DEPEND, VERSION = 1, 3  # MDT_DEPEND, MDT_VERSION
MAX_ENTRIES = 4096  # of one file; a GENERIC kernel has about 2000
_ABSOLUTE = 1  # R_X86_64_64, System V ABI for AMD64 section 4.4.1
_MAX_NAME = 32  # octets, MAXMODNAME


@dataclass(frozen=True, slots=True)
class About:
    """provides: names of the modules in the file; wants: names of those it depends on."""

    provides: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()


def about(data: bytes) -> About:
    """Read a kernel or a relocatable module; nothing is known of other files."""
    try:
        file = elf.parse(data)
    except WireError:
        return About()
    found = _of_module(file) if file.kind == elf.RELOCATABLE else _of_kernel(file)
    return About(
        tuple(name for kind, name in found if kind == VERSION), tuple(name for kind, name in found if kind == DEPEND)
    )


def _of_kernel(file: elf.Elf) -> list[tuple[int, str]]:
    number = file.section(b"set_modmetadata_set")
    table = file.contents(file.sections[number]) if number else b""
    found = []
    for (pointer,) in struct.iter_unpack("<Q", table[: min(len(table) // 8, MAX_ENTRIES) * 8]):
        entry = _at(file, pointer, 24)
        if len(entry) == 24:
            _, kind, _, name = struct.unpack("<iiQQ", entry)
            found.append((kind, _text(_at(file, name, _MAX_NAME))))
    return found


def _at(file: elf.Elf, address: int, size: int) -> bytes:
    """Up to `size` octets at a virtual address."""
    for part in file.segments:
        if part.kind == elf.LOAD and part.address <= address < part.address + part.file_size:
            start = part.offset + address - part.address
            return file.data[start : min(start + size, part.offset + part.file_size)]
    return b""


def _of_module(file: elf.Elf) -> list[tuple[int, str]]:
    number = file.section(b"set_modmetadata_set")
    if not number:
        return []
    targets: dict[int, dict[int, tuple[int, int]]] = {}
    found = []
    entries = sorted(_targets(file, number, targets).items())[:MAX_ENTRIES]
    for _, (section, offset) in entries:
        entry = file.contents(file.sections[section])[offset : offset + 8]
        place = _targets(file, section, targets).get(offset + 16)  # md_cval
        if len(entry) == 8 and place is not None:
            name = file.contents(file.sections[place[0]])[place[1] : place[1] + _MAX_NAME]
            found.append((struct.unpack("<ii", entry)[1], _text(name)))
    return found


def _targets(file: elf.Elf, number: int, known: dict[int, dict[int, tuple[int, int]]]) -> dict[int, tuple[int, int]]:
    """Where the pointers of a section go: offset -> (section, offset there)."""
    if number in known:
        return known[number]
    found = known[number] = {}
    for part in file.sections:
        if part.kind != elf.RELA or part.info != number or not 0 < part.link < len(file.sections):
            continue
        symbols = file.contents(file.sections[part.link])
        rows = file.contents(part)
        for at, info, addend in struct.iter_unpack("<QQq", rows[: len(rows) // 24 * 24]):
            symbol = symbols[(info >> 32) * 24 : (info >> 32) * 24 + 24]
            if info & 0xFFFFFFFF != _ABSOLUTE or len(symbol) < 24:
                continue
            section, value = struct.unpack_from("<HQ", symbol, 6)
            if 0 < section < len(file.sections) and value + addend >= 0:
                found[at] = (section, value + addend)
    return found


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("latin-1")
