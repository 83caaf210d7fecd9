"""What a file given as kernel or initrd really is, told by its first octets, before a machine finds out.

Formats: Documentation/arch/x86/boot.rst, arch/arm64/booting.rst, arch/riscv/boot-image-header.rst,
drivers/firmware/efi/libstub/zboot-header.S and driver-api/early-userspace/buffer-format.rst of Linux; the Multiboot
and Multiboot2 specifications; ECMA-119 for ISO images. Sentences are for the person who typed the command.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from dataclasses import dataclass, replace

from bootwire.assets import pe

HEAD = 65536  # octets that the checks want to see; fewer are fine if the file has no more
ANY_INITRD = ("wimboot", "memdisk", "multiboot", "efi", "unknown")  # kernels whose "initrds" may be anything


@dataclass(frozen=True, slots=True)
class Image:
    """A file we recognised and can work with.

    kind           kernels: linux, uki, efi, multiboot, wimboot, memdisk, memtest, unknown; initrds: initrd
    text           a noun phrase: "Linux 6.1.0-37-amd64 for x86_64"
    architectures  who can run it, as `buildarch` says it (x86_64, arm64, …); empty if nobody knows or it is all one
    version        as in the file, "" if it does not say
    bios, efi      whether iPXE can start it on BIOS and on UEFI machines
    warning        what will probably go wrong, a sentence, or ""
    """

    kind: str
    text: str
    architectures: tuple[str, ...] = ()
    version: str = ""
    bios: bool = False
    efi: bool = False
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Not what it was given as. because: what the file is instead, and what to do; follows "PATH: "."""

    because: str


def check_kernel(head: bytes, size: int = -1) -> Image | Refusal:
    """Is this something to boot? head: the first HEAD octets (or all); size: of the whole file, -1 if not known."""
    image = _kernel(head, size)
    packing, inside = _unpacked(head)
    if image is None and packing:
        image = _kernel(inside, -1)
        if isinstance(image, Image):
            warning = "" if image.kind == "multiboot" else _PACKED_KERNEL
            return replace(image, text=f"{image.text}, {packing}-compressed", warning=warning)
    if image is not None:
        return image
    if packing:
        name = _name(inside, -1) if inside else ""
        hint = _HINTS.get(name, "") if name else _ORDER
        return Refusal(f"{name or 'a file'}, {packing}-compressed, not a kernel{hint}")
    name = _name(head, size)
    if name:
        return Refusal(f"{name}, not a kernel{_HINTS.get(name, '')}")
    return Image("unknown", "a file of no known kind", bios=True, efi=True, warning="it is served as it is, unchecked")


def check_initrd(head: bytes, size: int = -1, kernel: Image | None = None) -> Image | Refusal:
    """Can this be unpacked by Linux as an initrd? Other kernels than Linux (wimboot, Xen, …) may be given anything."""
    if kernel is not None and kernel.kind in ANY_INITRD and head:
        return Image("initrd", _name(head, size) or "a file of no known kind")
    packing, inside = _unpacked(head)
    data = inside if packing else head
    packed = f", {packing}-compressed" if packing else ""
    if data[:6] in _NEWC:
        return Image("initrd", f"a cpio archive{packed}")
    if system := _file_system(data):
        return Image("initrd", system + packed, warning="the kernel must have it built in, and needs root=/dev/ram0")
    if kind := _kernel_text(data):
        return Refusal(f"{kind}{packed}, not an initrd{_ORDER}")
    if packing and not inside:  # a compression that only the kernel can undo
        return Image("initrd", f"an archive{packed}")
    if name := _name(data, -1 if packing else size):
        return Refusal(f"{name}{packed}, not an initrd{_HINTS.get(name, '')}")
    return Image("initrd", f"a file of no known kind{packed}", warning="Linux will probably not unpack it")


_NEWC = (b"070701", b"070702")  # cpio archives that Linux unpacks
_ISO, _WEB, _WIM, _EMPTY = "an ISO image", "a web page", "a Windows image (WIM)", "an empty file"
_CPIO, _SCRIPT, _TEXT, _LFS = "an initrd (cpio archive)", "an iPXE script", "a text file", "a Git LFS pointer"
_ORDER = "; the kernel comes first, initrds after it"
_HINTS = {
    _ISO: "; loop-mount it and take the kernel and initrd that its boot menu names",
    _WEB: "; the address probably gave an error or a login page instead of the file",
    _WIM: "; Windows starts with wimboot as the kernel and this as one of its initrds",
    _EMPTY: "; the download or the disk may have failed",
    _CPIO: _ORDER,
    _LFS: "; fetch the file itself with git lfs pull",
}
_PACKED = (  # what Linux unpacks; the standard library of Python 3.11 has none of the last three
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x5d\0\0", "lzma"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x89LZO\0\r\n\x1a\n", "lzo"),
)
_FILE_SYSTEMS = (  # what init/do_mounts_rd.c of Linux looks for in a ram disk image
    (0, b"hsqs", "squashfs"),
    (0, b"-rom1fs-", "romfs"),
    (0, b"\x45\x3d\xcd\x28", "cramfs"),
    (0x438, b"\x53\xef", "ext2"),
)
_ELF_MACHINES = {3: "i386", 62: "x86_64", 40: "arm32", 183: "arm64", 243: "riscv64", 258: "loong64"}
_SLACK = 4096  # octets a bzImage may be shorter than its header says: the last paragraph is not always padded


def _kernel(head: bytes, size: int) -> Image | Refusal | None:
    if head[0x202:0x206] == b"HdrS" and head[0x1FE:0x200] == b"\x55\xaa":
        return _bzimage(head, size)
    headers = pe.read(head)
    if headers is not None:
        return _efi(head, headers)
    if head[0x38:0x3C] == b"ARMd":
        return Image("linux", "Linux for arm64 without EFI stub", ("arm64",), warning=_NO_STUB)
    if head[0x38:0x3C] == b"RSC\x05":
        return Image("linux", "Linux for riscv64 without EFI stub", ("riscv64",), warning=_NO_STUB)
    if head[0x24:0x28] == b"\x18\x28\x6f\x01":
        return Image("linux", "Linux for arm32 (zImage) without EFI stub", ("arm32",), warning=_NO_STUB)
    if _multiboot(head):
        return Image("multiboot", "a Multiboot kernel", ("i386", "x86_64"), bios=True)
    if head[:4] == b"\x7fELF":
        machine = _ELF_MACHINES.get(pe.number(head, 0x12, 2), "another machine")
        return Refusal(f"an ELF program for {machine}, not a kernel to boot; give the bzImage or Image (often vmlinuz)")
    return None


_NO_STUB = "UEFI cannot start a kernel without EFI stub"
_PACKED_KERNEL = "few boot loaders unpack a kernel by themselves: unpack it first"


def _bzimage(head: bytes, size: int) -> Image | Refusal:
    protocol, pointer = pe.number(head, 0x206, 2), pe.number(head, 0x20E, 2)
    version = ""
    if pointer and protocol >= 0x0200:
        raw = head[0x200 + pointer :][:96].split(b"\0", 1)[0]
        version = raw.decode("ascii", "replace") if raw and raw.isascii() and raw.decode("ascii").isprintable() else ""
    told = ((head[0x1F1] or 4) + 1) * 512 + pe.number(head, 0x1F4, 4) * 16
    if 0 <= size < told - _SLACK and protocol >= 0x0204:
        return Refusal(f"a Linux kernel cut off at {size} of {told} octets; download or copy it again")
    headers = pe.read(head)
    for kind, mark, name in _NOT_LINUX:
        if mark in (version or head[:4096].decode("latin-1")):
            runs = (headers.architecture,) if headers else ()
            return Image(kind, version or name, runs, bios=True, efi=headers is not None)
    wide = protocol >= 0x020C and bool(pe.number(head, 0x236, 2) & 1)  # XLF_KERNEL_64
    architecture = headers.architecture if headers else "x86_64" if wide else "i386"
    number, _, builder = version.partition(" ")
    name = "Linux" if builder.startswith("(") or not version else "a bzImage"  # Linux names who built it, and where
    return Image(
        "linux",
        " ".join(word for word in (name, number, "for", architecture) if word),
        (architecture,),
        number,
        bios=True,
        efi=headers is not None,
        warning="" if headers else _NO_STUB,
    )


_NOT_LINUX = (  # kind, what its version string or head has, what to call it
    ("memtest", "Memtest86", "Memtest86+"),
    ("memdisk", "MEMDISK", "MEMDISK"),
    ("wimboot", "wimboot", "wimboot"),
)


def _efi(head: bytes, headers: pe.Pe) -> Image | Refusal:
    name = headers.architecture
    if not headers.efi:
        return Refusal(f"a Windows program for {name}, not a kernel")
    if head[4:8] == b"zimg":
        packing = head[24:32].split(b"\0", 1)[0].decode("ascii", "replace")
        return Image("linux", f"Linux for {name} (EFI zboot, {packing})", (name,), efi=True)
    if head[0x38:0x3C] in (b"ARMd", b"RSC\x05", b"\xcd\x23\x82\x81"):
        return Image("linux", f"Linux for {name} with EFI stub", (name,), efi=True)
    if ".linux" in headers.sections:
        return Image("uki", f"a unified kernel image for {name}", (name,), efi=True)
    if b"wimboot" in head[:4096]:
        return Image("wimboot", f"wimboot for {name}", (name,), efi=True)
    return Image("efi", f"an EFI program for {name}", (name,), efi=True)


def _multiboot(head: bytes) -> bool:
    for at in range(0, min(len(head), 8192) - 11, 4):  # Multiboot 3.1: aligned, within the first 8192 octets
        if head[at : at + 4] == b"\x02\xb0\xad\x1b":
            return sum(pe.number(head, at + 4 * word, 4) for word in range(3)) % 2**32 == 0
    for at in range(0, min(len(head), 32768) - 15, 8):  # Multiboot2 3.1: aligned, within the first 32768 octets
        if head[at : at + 4] == b"\xd6\x50\x52\xe8":
            return sum(pe.number(head, at + 4 * word, 4) for word in range(4)) % 2**32 == 0
    return False


def _name(head: bytes, size: int) -> str:
    """What a file that is no kernel looks like; "" if like nothing we know."""
    start = head[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if size == 0 or not head:
        return _EMPTY
    if head[:6] in _NEWC:
        return _CPIO
    if head[0x8001:0x8006] == b"CD001":
        return _ISO
    if head[:8] == b"MSWIM\0\0\0":
        return _WIM
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<title")):
        return _WEB
    if head.startswith((b"#!ipxe", b"#!gpxe")):
        return _SCRIPT
    if head.startswith(b"version https://git-lfs"):
        return _LFS
    if head[257:262] == b"ustar":
        return "a tar archive"
    for magic, name in _OTHERS:
        if head.startswith(magic):
            return name
    if system := _file_system(head):
        return system
    if head[0x1FE:0x200] == b"\x55\xaa" and not _printable(head[:256]):
        return "a disk image"
    return _TEXT if _printable(head[:1024]) else ""


_OTHERS = (
    (b"070707", "a cpio archive in the old format, which Linux does not unpack"),
    (b"!<arch>\ndebian", "a Debian package"),
    (b"\xed\xab\xee\xdb", "an RPM package"),
    (b"PK\x03\x04", "a zip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"QFI\xfb", "a qcow2 disk image"),
    (b"KDMV", "a VMDK disk image"),
    (b"\x27\x05\x19\x56", "a U-Boot image (uImage)"),
    (b"\xd0\x0d\xfe\xed", "a device tree or FIT image"),
    (b"ANDROID!", "an Android boot image"),
    (b"%PDF", "a PDF document"),
)


def _file_system(head: bytes) -> str:
    found = (system for at, magic, system in _FILE_SYSTEMS if head[at : at + len(magic)] == magic)
    return next((f"a {system} file system" for system in found), "")


def _printable(data: bytes) -> bool:
    return (
        bool(data)
        and not re.search(rb"[^\t\n\r\x20-\x7e\x80-\xff]", data)
        and sum(c > 126 for c in data) * 10 < len(data)
    )


def _kernel_text(head: bytes) -> str:
    kind = _kernel(head, -1)
    return kind.text if isinstance(kind, Image) else "an ELF program" if kind else ""


def _unpacked(head: bytes) -> tuple[str, bytes]:
    """The name of the compression and the first octets inside, at most HEAD: none if they cannot be had here.

    ("", b"") if this is not compressed at all.
    """
    packing = next((name for magic, name in _PACKED if head.startswith(magic)), "")
    try:
        if packing == "gzip":
            return packing, zlib.decompressobj(wbits=31).decompress(head, HEAD)
        if packing == "xz":
            return packing, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY).decompress(head, HEAD)
        if packing == "lzma":
            return packing, lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MEMORY).decompress(head, HEAD)
        if packing == "bzip2":
            return packing, bz2.BZ2Decompressor().decompress(head, HEAD)
    except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError):
        pass
    return packing, b""


_MEMORY = 256 << 20  # octets a decoder may take: xz -9 asks for 65 MiB, Debian's installers use 64 MiB dictionaries
