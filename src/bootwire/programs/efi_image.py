"""Makes an EFI application of what the linker made: ELF, linked to address 0 with its relocations kept, to PE32+.

Debian's binutils write PE for x86 alone, and with the moment in it. This is the same for each processor, and the same
octets each time. Formats: System V gABI (ELF-64), Microsoft PE format, UEFI 2.10 section 2.1.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

_RELA, _NOBITS, _ALLOCATED = 4, 8, 2  # sh_type, sh_type, sh_flags
_PLACES: Final = {  # e_machine -> PE machine; relocation types of 8-octet addresses; those that no moving changes
    62: (0x8664, {1}, {2, 4, 24}),  # x86-64 psABI: R_X86_64_64; PC32 PLT32 PC64
    183: (0xAA64, {257}, {261, 274, 275, 276, 277, 278, 279, 280, 282, 283, 284, 285, 286, 299}),  # AAELF64: ABS64
}
_PAGE: Final = 0x1000
_FILE: Final = 0x200  # octets: sections begin at multiples of it in the file
_CODE, _DATA, _RELOC = 0x6000_0020, 0xC000_0040, 0x4200_0040  # characteristics: what it is, and may be done with it


def convert(elf: bytes) -> bytes:
    """The EFI application. Raises ValueError for an ELF file that is none of ours."""
    machine, entry = struct.unpack_from("<18xH4xQ", elf)
    if elf[:5] != b"\x7fELF\x02" or machine not in _PLACES:
        raise ValueError("no ELF file of 64 bits for a processor that is known here")
    kind, absolute, relative = _PLACES[machine]
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, _ = struct.unpack_from("<HHH", elf, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", elf, table + size * i) for i in range(count)]
    loaded = [one for one in sections if one[2] & _ALLOCATED and one[5]]
    places = []
    for one in sections:
        if one[1] != _RELA or not sections[one[7]][2] & _ALLOCATED:
            continue
        for at in range(one[4], one[4] + one[5], 24):
            place, info = struct.unpack_from("<QQ", elf, at)
            if info & 0xFFFF_FFFF in absolute:
                places.append(place)
            elif info & 0xFFFF_FFFF not in relative:
                raise ValueError(f"a relocation of type {info & 0xFFFF_FFFF} at {place:#x}, which no PE image has")
    code = [one for one in loaded if one[3] < _data(loaded)]
    data = [one for one in loaded if one[3] >= _data(loaded)]
    parts = [(b".text", _CODE, *_joined(elf, code)), (b".data", _DATA, *_joined(elf, data))]
    end = _up(parts[-1][2] + parts[-1][4], _PAGE)
    fixed = b"".join(_blocks(sorted(places))) or struct.pack("<II", 0, 8)
    parts.append((b".reloc", _RELOC, end, fixed, len(fixed)))
    return _image(kind, entry, parts)


def _data(loaded: list[tuple[int, ...]]) -> int:
    """Where the first section that may be written begins."""
    return min(one[3] for one in loaded if one[2] & 1)


def _joined(elf: bytes, sections: list[tuple[int, ...]]) -> tuple[int, bytes, int]:
    """Address, octets in the file, octets in memory."""
    start = sections[0][3] & -_PAGE
    octets = bytearray()
    for _, kind, _, address, at, size, *_ in sections:
        if kind != _NOBITS:
            octets += bytes(address - start - len(octets)) + elf[at : at + size]
    return start, bytes(octets), sections[-1][3] + sections[-1][5] - start


def _blocks(places: list[int]) -> Iterator[bytes]:
    """Base relocations, IMAGE_REL_BASED_DIR64, one block for a page."""
    for page in sorted({place & -_PAGE for place in places}):
        entries = [0xA000 | place - page for place in places if place & -_PAGE == page]
        entries += [0] * (len(entries) % 2)
        yield struct.pack(f"<II{len(entries)}H", page, 8 + 2 * len(entries), *entries)


def _image(machine: int, entry: int, parts: list[tuple[bytes, int, int, bytes, int]]) -> bytes:
    table, body, at = b"", b"", _FILE * 2
    for name, flags, address, octets, size in parts:
        raw = octets.ljust(_up(len(octets), _FILE), b"\0")
        table += struct.pack("<8sIIIIIIHHI", name, size, address, len(raw), at + len(body), 0, 0, 0, 0, flags)
        body += raw
    relocations = parts[-1]
    whole = _up(relocations[2] + relocations[4], _PAGE)
    optional = struct.pack(
        "<HBBIIIIIQIIHHHHHHIIIIHHQQQQII", 0x20B, 0, 0, len(parts[0][3]), len(parts[1][3]), 0, entry, parts[0][2], 0,
        _PAGE, _FILE, 0, 0, 0, 0, 0, 0, 0, whole, at, 0, 10, 0x100, 0, 0, 0, 0, 0, 16,
    )  # fmt: skip
    directories = bytearray(16 * 8)
    struct.pack_into("<II", directories, 5 * 8, relocations[2], relocations[4])
    optional += directories
    coff = struct.pack("<HHIIIHH", machine, len(parts), 0, 0, 0, len(optional), 0x0022)
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0" + coff + optional + table
    return head.ljust(at, b"\0") + body


def _up(value: int, to: int) -> int:
    return -(-value // to) * to
