"""A Linux kernel with its initrds: is all of it there, and what does it take to enter it without its own loader.

Formats: Documentation/arch/x86/boot.rst (protocol 2.12, 64-bit entry), arch/x86/zero-page.rst, arch/arm64/booting.rst,
driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bootwire.assets.kernels import HEAD, Image, Refusal, check_initrd, check_kernel
from bootwire.preboot.handoff import fdt
from bootwire.wire.reader import WireError

ALIGN = 4  # octets: Linux looks for the next archive there (init/initramfs.c)
MAX_UNPACKED = 1 << 30  # octets of an unpacked kernel
PAGE = 4096
_STEP = 1 << 20  # octets unpacked at a time
_RAM = 1  # type of an E820 entry: free memory
_BELOW = 1 << 32  # where everything goes on x86: the entry code reaches no further
_ABOVE = 0x100000  # not below the first megabyte, where firmware keeps things
_BLOCK = 2 << 20  # octets that an arm64 kernel, and its device tree, are aligned to
_WINDOW = 32 << 30  # octets that hold an arm64 kernel and its initrd


class NotStartable(ValueError):
    """This kernel cannot be entered in this way; the text says why."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel as kexec and QEMU take it: unpacked where it came gzip-compressed."""

    image: Image
    data: bytes

    @property
    def architecture(self) -> str:
        """As `buildarch` says it: x86_64, i386, arm64, riscv64, …"""
        return self.image.architectures[0] if self.image.architectures else ""


def read_kernel(data: bytes) -> Kernel | Refusal:
    """Recognise a kernel and see that all of it is there."""
    if data[:2] == b"\x1f\x8b":
        unpacked = _unpack(data)
        if unpacked is None:
            return Refusal("a gzip-compressed file that is cut off or damaged; download or copy it again")
        data = unpacked
    image = check_kernel(data[:HEAD], len(data))
    if isinstance(image, Refusal):
        return image
    if image.kind != "linux":
        return Refusal(f"{image.text}: only Linux and FreeBSD kernels can be handed off to")
    end = _pe_end(data)
    if end > len(data):
        return Refusal(f"a Linux kernel cut off at {len(data)} of {end} octets; download or copy it again")
    return Kernel(image, data)


def read_initrd(data: bytes) -> Image | Refusal:
    """Recognise an initrd and, where the compression tells, see that all of its first archive is there."""
    image = check_initrd(data[:HEAD], len(data))
    if isinstance(image, Image) and not _whole(data):
        return Refusal(f"{image.text} that is cut off or damaged; download or copy it again")
    return image


def join(initrds: Iterable[bytes]) -> bytes:
    """Several initrds as one, in order: the kernel unpacks archive after archive, later files over earlier ones."""
    out = bytearray()
    for data in initrds:
        out += bytes(-len(out) % ALIGN) + data
    return bytes(out)


def check_command_line(kernel: Kernel, text: str) -> str:
    """What is wrong with a command line, "" if nothing."""
    if "\0" in text or "\n" in text:
        return "a kernel command line is one line"
    most = int.from_bytes(kernel.data[0x238:0x23C], "little") if kernel.architecture == "x86_64" else 2047
    if len(text.encode()) > most:
        return f"the kernel takes {most} octets of command line, these are {len(text.encode())}"
    return ""


# --- entering a kernel through kexec_load(2) --------------------------------------------------------------------

# Entered in 64-bit mode, interrupts off, memory mapped one to one; 0x22222222 and so on are filled in.
SOURCE = """
        .code64
start:  cli
        cld
        lgdt    gdtr(%rip)
        movl    $0x18, %eax             # __BOOT_DS
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $0x22222222, %esi       # boot_params
        xorl    %ebx, %ebx
        xorl    %ebp, %ebp
        xorl    %edi, %edi
        ljmp    *kernel(%rip)
        .balign 8
gdt:    .quad   0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdtr:   .word   31
        .quad   0x3333333333333333
        .balign 4
kernel: .long   0x44444444
        .word   0x10                    # __BOOT_CS
"""
CODE = bytes.fromhex(
    "fafc0f01153f000000b8180000008ed88ec08ed0be2222222231db31ed31ff"
    "ff2d2f0000000f1f0000000000000000000000000000000000ffff0000009baf00ffff00000093cf00"
    "1f0033333333333333336690444444441000"
)
_GDT = 0x28  # offset of `gdt` in CODE


@dataclass(frozen=True, slots=True)
class Placed:
    """Octets by physical address, page-aligned; `entry` is where to jump."""

    entry: int
    segments: tuple[tuple[int, bytes], ...]


def place(
    kernel: Kernel,
    initrd: bytes,
    command_line: str,
    memory: Sequence[tuple[int, int, int]],
    screen: bytes = b"",
    rsdp: int = 0,
) -> Placed:
    """Lay a bzImage out for its 64-bit entry point. Raises NotStartable.

    memory: (base, length, type) as E820 has them; screen: `screen_info`, the first 64 octets of this machine's own
    boot_params; rsdp: physical address of the ACPI root pointer, 0 to let the kernel look for it.
    """
    data = kernel.data
    if kernel.architecture != "x86_64" or len(data) < 0x280 or _field(data, 0x206, 2) < 0x020C:
        raise NotStartable("only 64-bit x86 kernels since Linux 3.8 have the entry point for this")
    if not data[0x236] & 1:  # XLF_KERNEL_64
        raise NotStartable("this kernel has no 64-bit entry point")
    code = data[((data[0x1F1] or 4) + 1) * 512 :]
    size = max(_field(data, 0x260, 4), len(code))  # init_size: what it needs until it knows its memory
    free = _Free(memory, _ABOVE, _BELOW)
    at = free.exactly(_field(data, 0x258, 8), size)  # pref_address
    if at is None and data[0x234]:  # relocatable_kernel
        at = free.lowest(size, max(PAGE, _field(data, 0x230, 4)), 16 << 20)
    small = PAGE * 3
    rest = None if at is None else free.lowest(small, PAGE, 16 << 20)
    most = _field(data, 0x22C, 4)  # initrd_addr_max
    archive = free.highest(len(initrd), min(most + 1, _BELOW)) if initrd and rest is not None else 0
    if at is None or rest is None or archive is None:
        raise NotStartable("there is not enough memory in one piece for this kernel and its initrd")
    params = bytearray(PAGE)
    params[: min(len(screen), 64)] = screen[:64]
    params[0x70:0x78] = struct.pack("<Q", rsdp)
    header_end = min(0x202 + data[0x201], 0x290)
    params[0x1F1:header_end] = data[0x1F1:header_end]
    entries = list(memory)[:128]
    params[0x1E8] = len(entries)
    params[0x2D0 : 0x2D0 + 20 * len(entries)] = b"".join(struct.pack("<QQI", *entry) for entry in entries)
    params[0x210] = 0xFF  # type_of_loader: none of the registered ones
    struct.pack_into("<II", params, 0x218, archive, len(initrd))
    struct.pack_into("<I", params, 0x228, rest + 2 * PAGE)  # cmd_line_ptr
    text = command_line.encode() + b"\0"
    if len(text) > PAGE:
        raise NotStartable(f"the command line is {len(text)} octets long, more than {PAGE}")
    blanks = {0x22: struct.pack("<I", rest), 0x33: struct.pack("<Q", rest + PAGE + _GDT)}
    blanks[0x44] = struct.pack("<I", at + 0x200)  # startup_64
    program = CODE
    for octet, value in blanks.items():
        hole = CODE.index(bytes([octet]) * len(value))
        program = program[:hole] + value + program[hole + len(value) :]
    low = bytes(params) + program + bytes(PAGE - len(program)) + text
    segments = [(at, code), (rest, low)]
    if initrd:
        segments.append((archive, initrd))
    return Placed(rest + PAGE, tuple(sorted(segments)))


def place_arm64(
    kernel: Kernel, initrd: bytes, command_line: str, memory: Sequence[tuple[int, int, int]], tree: bytes
) -> Placed:
    """Lay an arm64 Image out for its entry point. Raises NotStartable.

    memory: (base, length, type), type 1 being free; tree: the running kernel's device tree (/sys/firmware/fdt).
    """
    data = kernel.data
    if kernel.architecture != "arm64" or data[0x38:0x3C] != b"ARMd":
        raise NotStartable("this is no arm64 Image")
    offset, size = _field(data, 8, 8), _field(data, 16, 8)  # text_offset, image_size
    if offset >= _BLOCK or not size:
        raise NotStartable("this Image is of before Linux 3.17, or damaged")
    free = _Free(memory, 0, 1 << 52)
    at = free.lowest(offset + max(size, len(data)), _BLOCK)
    window = None if at is None else free.within(at >> 30 << 30, (at >> 30 << 30) + _WINDOW)
    archive = window.highest(len(initrd), 1 << 52) if window and initrd else 0
    tree_at = window.highest(_BLOCK, 1 << 52, _BLOCK) if window else None
    code_at = window.highest(PAGE, 1 << 52) if window else None
    if at is None or archive is None or tree_at is None or code_at is None:
        raise NotStartable("there is not enough memory in one piece for this kernel and its initrd")
    ends = (archive, archive + len(initrd)) if initrd else (None, None)
    chosen = {"bootargs": command_line.encode() + b"\0", "kaslr-seed": None, "rng-seed": None}
    places = {name: None if end is None else struct.pack(">Q", end) for name, end in zip(_INITRD, ends, strict=True)}
    try:
        described = fdt.with_chosen(tree, {**chosen, **places})
    except WireError as error:
        raise NotStartable(f"the machine's device tree cannot be read: {error.what}") from None
    code = ARM64_CODE + struct.pack("<QQ", tree_at, at + offset)
    segments = [(at + offset, data), (tree_at, described), (code_at, code)]
    if offset % PAGE:
        segments[0] = (at, bytes(offset) + data)
    if initrd:
        segments.append((archive, initrd))
    return Placed(code_at, tuple(sorted(segments)))


_INITRD = ("linux,initrd-start", "linux,initrd-end")
ARM64_CODE = struct.pack(
    "<6I",
    0x580000C0,  # ldr x0, .+24     the device tree
    0x580000E4,  # ldr x4, .+28     the kernel
    0xD2800001,  # mov x1, #0
    0xD2800002,  # mov x2, #0
    0xD2800003,  # mov x3, #0
    0xD61F0080,  # br  x4
)


class _Free:
    """What is free of the memory between two addresses."""

    def __init__(self, memory: Iterable[tuple[int, int, int]], above: int, below: int) -> None:
        self._free = sorted(
            (max(base, above), min(base + length, below))
            for base, length, kind in memory
            if kind == _RAM and base < below and base + length > above
        )

    def within(self, above: int, below: int) -> _Free:
        """The part of it between two addresses."""
        return _Free([(start, end - start, _RAM) for start, end in self._free], above, below)

    def exactly(self, at: int, size: int) -> int | None:
        return next((self._take(at, size) for start, end in self._free if start <= at and at + size <= end), None)

    def lowest(self, size: int, align: int, above: int = 0) -> int | None:
        for start, end in self._free:
            at = -(-max(start, above) // align) * align
            if at + size <= end:
                return self._take(at, size)
        return None

    def highest(self, size: int, below: int, align: int = PAGE) -> int | None:
        for start, end in reversed(self._free):
            at = (min(end, below) - size) // align * align
            if at >= start:
                return self._take(at, size)
        return None

    def _take(self, at: int, size: int) -> int:
        last = at + -(-size // PAGE) * PAGE
        parts = [((start, min(end, at)), (max(start, last), end)) for start, end in self._free]
        self._free = [part for pair in parts for part in pair if part[0] < part[1]]
        return at


def _field(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _pe_end(data: bytes) -> int:
    """Where the last section of a kernel with EFI stub ends in the file, 0 if it has no PE headers."""
    at = _field(data, 0x3C, 4)
    if data[:2] != b"MZ" or data[at : at + 4] != b"PE\0\0":
        return 0
    table = at + 24 + _field(data, at + 20, 2)
    rows = range(table, table + 40 * min(_field(data, at + 6, 2), 96), 40)
    return max((_field(data, row + 16, 4) + _field(data, row + 20, 4) for row in rows), default=0)


def _unpack(data: bytes) -> bytes | None:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        out = unpacker.decompress(data, MAX_UNPACKED)
    except zlib.error:
        return None
    return out if unpacker.eof else None


def _whole(data: bytes) -> bool:
    """Whether the first archive's compressed data comes to an end; true where we cannot tell."""
    unpacker: bz2.BZ2Decompressor | lzma.LZMADecompressor
    try:
        if data[:2] == b"\x1f\x8b":
            stream = zlib.decompressobj(wbits=31)
            rest = data
            while rest and not stream.eof:
                stream.decompress(rest, _STEP)
                rest = stream.unconsumed_tail
            stream.flush()
            return stream.eof
        if data[:6] == b"\xfd7zXZ\0":
            unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=256 << 20)
        elif data[:3] == b"BZh":
            unpacker = bz2.BZ2Decompressor()
        else:
            return True
        chunk = data
        while not unpacker.eof and (chunk or not unpacker.needs_input):
            unpacker.decompress(chunk, _STEP)
            chunk = b""
        return unpacker.eof
    except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError):
        return False
