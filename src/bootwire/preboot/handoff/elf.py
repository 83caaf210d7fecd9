"""ELF64, little-endian: the headers that a loader needs (System V ABI, "Object Files"; elf(5)). Total and bounded.

Offsets and sizes are checked against the file, so that whatever `parse` returns can be sliced without surprise.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bootwire.wire.reader import WireError

EXECUTABLE, SHARED, RELOCATABLE = 2, 3, 1  # e_type
X86_64 = 62  # e_machine
LOAD, DYNAMIC, NOTE = 1, 2, 4  # p_type
PROGBITS, SYMTAB, STRTAB, RELA, NOBITS, REL, UNWIND = 1, 2, 3, 4, 8, 9, 0x70000001  # sh_type
ALLOC = 2  # sh_flags: takes memory while it runs

HEADER = 64  # octets of the file header
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")


@dataclass(frozen=True, slots=True)
class Segment:
    """A program header. Octets `offset` to `offset + file_size` of the file go to `address`; `size` counts the bss."""

    kind: int
    flags: int
    offset: int
    address: int
    physical: int
    file_size: int
    size: int
    align: int


@dataclass(frozen=True, slots=True)
class Section:
    """A section header. name: offset in the section name table; link and info as the kind says."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry_size: int

    def emit(self) -> bytes:
        return _SECTION.pack(
            self.name, self.kind, self.flags, self.address, self.offset, self.size,
            self.link, self.info, self.align, self.entry_size,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Elf:
    """A whole file with its headers read. names: index of the section name table, 0 if none."""

    data: bytes
    kind: int
    machine: int
    entry: int
    names: int
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]

    def contents(self, part: Segment | Section) -> bytes:
        """The octets in the file; a NOBITS section has none."""
        if isinstance(part, Section):
            return b"" if part.kind == NOBITS else self.data[part.offset : part.offset + part.size]
        return self.data[part.offset : part.offset + part.file_size]

    def section(self, name: bytes) -> int:
        """Index of the section with this name, 0 if there is none."""
        if not 0 < self.names < len(self.sections):
            return 0
        table = self.contents(self.sections[self.names])
        wanted = name + b"\0"
        for number, section in enumerate(self.sections):
            if number and table[section.name : section.name + len(wanted)] == wanted:
                return number
        return 0


def parse(data: bytes) -> Elf:
    """Read the headers of a whole file. Raises WireError; "truncated …" where a header names octets past the end."""
    if data[:4] != b"\x7fELF":
        raise WireError("no ELF magic", 0)
    if len(data) < HEADER:
        raise WireError("truncated ELF header", len(data))
    if data[4] != 2 or data[5] != 1:
        raise WireError("not a 64-bit little-endian ELF file", 4)
    kind, machine, _, entry, program_at, section_at = struct.unpack_from("<HHIQQQ", data, 16)
    program_size, programs, section_size, sections, names = struct.unpack_from("<HHHHH", data, 54)
    if programs and program_size != _PROGRAM.size:
        raise WireError(f"program headers of {program_size} octets", 54)
    if sections and section_at and section_size != _SECTION.size:
        raise WireError(f"section headers of {section_size} octets", 58)
    if programs and program_at + programs * _PROGRAM.size > len(data):
        raise WireError("truncated program headers", len(data))
    found = [Segment(*_PROGRAM.unpack_from(data, program_at + n * _PROGRAM.size)) for n in range(programs)]
    for segment in found:
        if segment.kind == LOAD and segment.offset + segment.file_size > len(data):
            raise WireError("truncated segment", len(data))
        if segment.kind == LOAD and segment.file_size > segment.size:
            raise WireError("a segment larger in the file than in memory", segment.offset)
    if not section_at:
        sections = 0
    if sections and section_at + sections * _SECTION.size > len(data):
        raise WireError("truncated section headers", len(data))
    parts = [Section(*_SECTION.unpack_from(data, section_at + n * _SECTION.size)) for n in range(sections)]
    for section in parts:
        if section.kind not in (NOBITS, 0) and section.offset + section.size > len(data):
            raise WireError("truncated section", len(data))
        if section.align & (section.align - 1) if section.align else 0:
            raise WireError(f"a section aligned to {section.align}", section.offset)
    return Elf(data, kind, machine, entry, names, tuple(found), tuple(parts))
