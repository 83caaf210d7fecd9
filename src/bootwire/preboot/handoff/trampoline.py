"""The last steps into a FreeBSD kernel for amd64: a machine program, page tables, and the file that QEMU starts.

    0x100000  the program below     0x101000  page tables (3 pages)     0x104000  the kernel's arguments
    0x200000  the kernel, by convention, and everything that goes with it

The kernel wants long mode, paging with low memory at 0 and at KERNBASE, interrupts off, and at %rsp a word to spare,
`modulep` and `kernend` (sys/amd64/amd64/locore.S). The program is entered by kexec (64-bit code, Linux' identity
mapping, perhaps with five levels: it leaves long mode to get rid of that) or as a PVH guest (32-bit code without
paging, %ebx at hvm_start_info: xen/include/public/arch-x86/hvm/start_info.h), where it also copies the machine's
memory map into the records.
"""

from __future__ import annotations

import re
import struct

from bootwire.preboot.handoff.freebsd import MAP_ROOM, PAGE, Image, NotLoadable

PROGRAM, TABLES, STACK = 0x100000, 0x101000, 0x104000  # physical addresses, within the second megabyte
KEXEC_ENTRY, PVH_ENTRY = PROGRAM, PROGRAM + 0x20
PHYS32_ENTRY = 18  # XEN_ELFNOTE_PHYS32_ENTRY

# The program, as GNU as assembles this (constants like 0x22222222 are filled in for each image):
SOURCE = """
        .code64
kexec:  cli
        cld
        lgdt    gdtr
        ljmp    *leave_at
        .balign 16
        .code32
pvh:    cli
        cld
        lgdt    gdtr
        cmpl    $0x336ec578, (%ebx)     # XEN_HVM_START_MAGIC_VALUE
        jne     ready
        cmpl    $1, 4(%ebx)             # since version 1 it has a memory map
        jb      ready
        movl    48(%ebx), %ecx          # memmap_entries
        cmpl    $0x22222222, %ecx       # as many as there is room for
        jbe     1f
        movl    $0x22222222, %ecx
1:      movl    40(%ebx), %esi          # memmap_paddr
        movl    $0x33333333, %edi       # data of the SMAP record
        imull   $20, %ecx, %eax
        movl    %eax, -4(%edi)          # its length
        jecxz   3f
2:      movsl                           # base, length, type: 20 octets of each 24
        movsl
        movsl
        movsl
        movsl
        addl    $4, %esi
        loop    2b
3:      testl   $4, %edi                # padded to eight
        jz      4f
        xorl    %eax, %eax
        stosl
4:      movl    $0x44444444, %esi       # the records behind the map
        movl    $0x55555555, %ecx
        rep movsb
ready:  movl    $0x101000, %eax
        movl    %eax, %cr3
        movl    $0x20, %eax             # CR4.PAE, and nothing of what was there
        movl    %eax, %cr4
        movl    $0xc0000080, %ecx       # EFER.LME
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    $0x80000011, %eax       # CR0.PG, ET, PE
        movl    %eax, %cr0
        ljmp    $8, $long
leave:  movl    $0x10, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    %cr0, %eax
        btrl    $31, %eax
        movl    %eax, %cr0
        jmp     ready
        .code64
long:   movl    $0x10, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $0x104000, %esp
        movabsq $0x6666666666666666, %rax
        jmp     *%rax
        .balign 8
gdt:    .quad   0, 0x00af9a000000ffff, 0x00cf92000000ffff, 0x00cf9a000000ffff
gdtr:   .word   31
        .long   gdt, 0
        .balign 4
leave_at: .long leave
        .word   0x18
"""
CODE = bytes.fromhex(
    "fafc0f011425f8001000ff2c250401100066662e0f1f8400000000000f1f4000fafc0f0115f8001000813b78c56e33754783"
    "7b040172418b4b3081f9222222227605b9222222228b7328bf333333336bc1148947fce30aa5a5a5a5a583c604e2f6f7c704"
    "000000740331c0abbe44444444b955555555f3a4b8001010000f22d8b8200000000f22e0b9800000c00f320d000100000f30"
    "b8110000800f22c0eabc0010000800b8100000008ed88ec08ed00f20c00fbaf01f0f22c0ebbcb8100000008ed88ec08ed0bc"
    "0040100048b86666666666666666ffe00000000000000000ffff0000009aaf00ffff00000092cf00ffff0000009acf001f00"
    "d8001000000000006690a50010001800"
)


def low_memory(image: Image) -> tuple[int, bytes]:
    """Program, page tables and arguments for this image: (physical address, octets)."""
    tables = _every(TABLES + PAGE, 3, 0) + _every(TABLES + 2 * PAGE, 3, 0) + _every(0, 0x83, 2 << 20)
    arguments = struct.pack("<4I", 0, image.modulep, image.kernend, 0)
    code = _program(image)
    return PROGRAM, code + bytes(PAGE - len(code)) + tables + arguments + bytes(PAGE - len(arguments))


def kexec_segments(image: Image) -> list[tuple[int, bytes]]:
    """What kexec_load(2) takes, page-aligned; start it at KEXEC_ENTRY. Raises NotLoadable."""
    if image.missing_map is not None:
        raise NotLoadable("kexec starts a kernel without firmware in between: the memory map must be known before")
    return [low_memory(image), image.merged()]


def pvh_elf(image: Image) -> bytes:
    """One ELF file that QEMU starts with -kernel (hw/i386/x86.c: a note of type 18 names the 32-bit entry)."""
    segments = [low_memory(image), *image.segments]
    note = struct.pack("<III4sI", 4, 4, PHYS32_ENTRY, b"Xen\0", PVH_ENTRY)
    headers = 64 + 56 * (len(segments) + 1)
    offset = -(-(headers + len(note)) // PAGE) * PAGE
    table = [struct.pack("<IIQQQQQQ", 4, 4, headers, 0, 0, len(note), len(note), 4)]
    body = []
    for at, data in segments:
        table.append(struct.pack("<IIQQQQQQ", 1, 7, offset, at, at, len(data), len(data), PAGE))
        body.append(data + bytes(-len(data) % PAGE))
        offset += len(body[-1])
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    shape = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, PVH_ENTRY, 64, 0, 0, 64, 56, len(table), 64, 0, 0)
    start = ident + shape + b"".join(table) + note
    return b"".join([start, bytes(-len(start) % PAGE), *body])


def _program(image: Image) -> bytes:
    """CODE with its blanks filled in: eight octets 0x66 for the entry, four of 0x22, 0x33, … for the memory map."""
    values = {0x66: struct.pack("<Q", image.entry)}
    if (missing := image.missing_map) is not None:
        words = (min(missing.room, MAP_ROOM), missing.at, *missing.tail)
        values |= {0x22 + 0x11 * number: struct.pack("<I", word) for number, word in enumerate(words)}
    code = bytearray(CODE)
    for octet, value in values.items():
        for blank in re.finditer(re.escape(bytes([octet]) * len(value)), CODE):
            code[blank.start() : blank.end()] = value
    return bytes(code)


def _every(first: int, flags: int, step: int) -> bytes:
    return b"".join(struct.pack("<Q", (first + number * step) | flags) for number in range(512))
