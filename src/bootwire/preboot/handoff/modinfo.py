"""What a FreeBSD loader tells the kernel: a list of records in memory (sys/sys/linker.h, sys/x86/include/metadata.h).

Each record is a 32-bit type, a 32-bit length and that many octets, padded to eight; type 0 of length 0 is the last.
A NAME record begins a file (the kernel first, then modules), and the records up to the next NAME are about that file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from bootwire.wire.reader import WireError

END, NAME, TYPE, ADDR, SIZE, ARGS = 0, 1, 2, 3, 4, 6
ELFHDR, SSYM, ESYM, DYNAMIC = 0x8002, 0x8003, 0x8004, 0x8005
ENVP, HOWTO, KERNEND, SHDR = 0x8006, 0x8007, 0x8008, 0x8009
CTORS_ADDR, CTORS_SIZE = 0x800A, 0x800B
SMAP, MODULEP = 0x9001, 0x9006  # of the x86 kernels alone

NAMES = {
    END: "end", NAME: "name", TYPE: "type", ADDR: "addr", SIZE: "size", ARGS: "args", ELFHDR: "elfhdr", SSYM: "ssym",
    ESYM: "esym", DYNAMIC: "dynamic", ENVP: "envp", HOWTO: "howto", KERNEND: "kernend", SHDR: "shdr",
    CTORS_ADDR: "ctors_addr", CTORS_SIZE: "ctors_size", SMAP: "smap", MODULEP: "modulep",
}  # fmt: skip

MAX_RECORDS = 65536  # far above a kernel with every module there is


@dataclass(frozen=True, slots=True)
class Record:
    """One record. data without its padding; strings with their NUL."""

    kind: int
    data: bytes

    @property
    def number(self) -> int:
        """The data as an unsigned little-endian number."""
        return int.from_bytes(self.data, "little")

    @property
    def text(self) -> str:
        """The data as a string, without the NUL."""
        return self.data.split(b"\0", 1)[0].decode("latin-1")

    def emit(self) -> bytes:
        return struct.pack("<II", self.kind, len(self.data)) + self.data + bytes(-len(self.data) % 8)


def string(kind: int, text: str) -> Record:
    """A string with its NUL."""
    return Record(kind, text.encode() + b"\0")


def word(kind: int, value: int) -> Record:
    """A 64-bit number, as addresses and sizes are for amd64."""
    return Record(kind, struct.pack("<Q", value))


def emit(records: Iterable[Record]) -> bytes:
    """The list in memory, with its END."""
    return b"".join(record.emit() for record in records) + bytes(8)


def parse(data: bytes) -> list[Record]:
    """The records up to END, which is left out. Raises WireError."""
    records: list[Record] = []
    at = 0
    while len(records) < MAX_RECORDS:
        if at + 8 > len(data):
            raise WireError("no end of the records", at)
        kind, length = struct.unpack_from("<II", data, at)
        if kind == END and length == 0:
            return records
        if at + 8 + length > len(data):
            raise WireError(f"truncated record of type {kind:#x}", at)
        records.append(Record(kind, data[at + 8 : at + 8 + length]))
        at += 8 + length + -length % 8
    raise WireError("too many records", at)
