"""Disk images with partition tables, made here so that tests know what is in them, and code to boot from them."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path

from bootwire.programs.build import build

SECTOR = 512
LINUX_DATA = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
UNIQUE = uuid.UUID("11111111-2222-3333-4444-555555555555")

MARK = """
# says on the first serial port where it was started, with which disk in DL and which partition's start at DS:SI
        .code16
        .globl  _start
_start: movw    $text, %bp
next:   movb    %cs:(%bp), %al
        incw    %bp
        testb   %al, %al
        jz      disk
        call    say
        jmp     next
disk:   movb    %dl, %bl
        call    hex
        movb    $' ', %al
        call    say
        movl    8(%si), %ecx
        movw    $8, %di
digit:  roll    $4, %ecx
        movb    %cl, %bl
        call    nibble
        decw    %di
        jnz     digit
        movb    $'\\n', %al
        call    say
stop:   hlt
        jmp     stop
hex:    rorb    $4, %bl
        call    nibble
        rorb    $4, %bl
nibble: movb    %bl, %al
        andb    $15, %al
        cmpb    $10, %al
        sbbb    $0x69, %al
        das
say:    pushw   %dx
        pushw   %ax
        movw    $0x3FD, %dx
1:      inb     %dx, %al
        testb   $0x20, %al
        jz      1b
        popw    %ax
        movw    $0x3F8, %dx
        outb    %al, %dx
        popw    %dx
        ret
text:   .asciz  "............ MARK " # what was said last through the BIOS may come out only now, among the dots
        .org    510
        .word   0xAA55
"""


def code(directory: Path, mark: str) -> bytes:
    """A boot record of 512 octets that prints `mark`, the disk in DL and the start at DS:SI: "MARK 80 00000800"."""
    source = directory / f"{mark.split()[0].lower()}.S"
    source.write_text(MARK.replace("MARK ", f"{mark} "))
    return build(source)


def mbr_disk(
    path: Path, size: int, entries: Sequence[tuple[int, int, int, int]], records: dict[int, bytes] | None = None
) -> Path:
    """entries: active flag, type, start and count in sectors; records: sector -> its octets (0: the MBR's own code)."""
    with path.open("wb") as disk:
        disk.truncate(size)
        sector = bytearray((records or {}).get(0, b"").ljust(SECTOR, b"\0"))
        sector[440:446] = struct.pack("<IH", 0x12345678, 0)
        sector[446:510] = bytes(64)
        for i, (active, kind, start, count) in enumerate(entries):
            sector[446 + 16 * i : 462 + 16 * i] = _entry(active, kind, start, count)
        sector[510:] = b"\x55\xaa"
        disk.write(sector)
        for at, octets in (records or {}).items():
            if at:
                disk.seek(at * SECTOR)
                disk.write(octets)
    return path


def logical(kind: int, start: int, count: int, following: tuple[int, int] | None = None) -> bytes:
    """A sector of an extended partition: start counts from itself, `following` (start, count) from the first one."""
    entries = _entry(0, kind, start, count) + (_entry(0, 5, *following) if following else bytes(16))
    return (bytes(446) + entries).ljust(510, b"\0") + b"\x55\xaa"


def gpt_disk(
    path: Path,
    size: int,
    partitions: dict[int, tuple[int, int, str]],
    records: dict[int, bytes],
    kinds: dict[int, uuid.UUID] | None = None,
) -> Path:
    """partitions: index from 1 -> first sector, last sector, name; kinds: types; records: sector -> its octets."""
    last = size // SECTOR - 1
    mbr_disk(path, size, [(0, 0xEE, 1, last)], records)
    entries = bytearray(128 * 128)
    for index, (first, end, name) in partitions.items():
        text = name.encode("utf-16-le").ljust(72, b"\0")
        entries[128 * (index - 1) : 128 * index] = (
            (kinds or {}).get(index, LINUX_DATA).bytes_le + UNIQUE.bytes_le + struct.pack("<QQQ", first, end, 0) + text
        )
    head = struct.pack(
        "<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, 1, last, 34, last - 33, UNIQUE.bytes_le, 2, 128, 128,
        zlib.crc32(entries),
    )  # fmt: skip
    head = head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:]
    with path.open("r+b") as disk:
        disk.seek(SECTOR)
        disk.write(head)
        disk.seek(2 * SECTOR)
        disk.write(entries)
    return path


def _entry(active: int, kind: int, start: int, count: int) -> bytes:
    return struct.pack("<B3sB3sII", active, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start, count)
