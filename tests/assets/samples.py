"""Small files with the marks that real ones have, built from the formats' own descriptions."""

import gzip
import lzma
import struct

MACHINES = {"i386": 0x014C, "x86_64": 0x8664, "arm32": 0x01C2, "arm64": 0xAA64, "riscv64": 0x5064, "loong64": 0x6264}


def pe(
    machine: str = "x86_64",
    body: bytes = b"",
    *,
    subsystem: int = 10,
    sections: tuple[str, ...] = (".text",),
    signature: bytes = b"",
    stub: bytes = b"",
) -> bytes:
    """A PE32+ image: headers, section table, `body`, and a certificate table if there is a `signature`."""
    table = b"".join(name.encode().ljust(8, b"\0") + bytes(32) for name in sections)
    headers = 0x80 + 24 + 240 + len(table)
    at = (headers + len(body) + 7) & ~7
    directories = bytearray(16 * 8)
    if signature:
        struct.pack_into("<II", directories, 4 * 8, at, len(signature))
    optional = bytearray(112)
    struct.pack_into("<H", optional, 0, 0x20B)
    struct.pack_into("<H", optional, 68, subsystem)
    struct.pack_into("<I", optional, 108, 16)
    dos = bytearray(b"MZ".ljust(0x80, b"\0"))
    dos[4 : 4 + len(stub)] = stub
    struct.pack_into("<I", dos, 0x3C, 0x80)
    coff = struct.pack("<HHIIIHH", MACHINES[machine], len(sections), 0, 0, 0, 240, 0x206)
    image = bytes(dos) + b"PE\0\0" + coff + bytes(optional) + bytes(directories) + table + body
    return image.ljust(at, b"\0") + signature if signature else image


def bzimage(
    version: str = "6.1.0-37-amd64 (debian-kernel@lists.debian.org) #1 SMP", *, stub: str = "x86_64", wide: bool = True
) -> bytes:
    """A Linux/x86 kernel's first 2 KiB and what they announce. stub: PE machine, "" for no EFI stub."""
    head = bytearray(2048)
    head[0x1F1] = 3
    struct.pack_into("<I", head, 0x1F4, 512)
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, 0x020F)
    struct.pack_into("<H", head, 0x20E, 0x400)
    struct.pack_into("<H", head, 0x236, int(wide))
    head[0x600 : 0x600 + len(version) + 1] = version.encode() + b"\0"
    if stub:
        head[0:2] = b"MZ"
        struct.pack_into("<I", head, 0x3C, 0x40)
        start = 0x40
        head[start : start + 24] = b"PE\0\0" + struct.pack("<HHIIIHH", MACHINES[stub], 0, 0, 0, 0, 240, 0x206)
        struct.pack_into("<H", head, start + 24, 0x20B)
        struct.pack_into("<H", head, start + 24 + 68, 10)
    return bytes(head).ljust(2048 + 512 * 16, b"\xcc")


def arm64_image(stub: bool = True) -> bytes:
    image = bytearray(pe("arm64") if stub else bytes(512))
    image[0x38:0x3C] = b"ARMd"
    return bytes(image).ljust(4096, b"\xcc")


def zboot(machine: str = "arm64") -> bytes:
    return pe(machine, bytes(256), stub=b"zimg" + struct.pack("<II", 0x1000, 0x2000) + bytes(8) + b"gzip\0")


def cpio(data: bytes = b"#!/bin/sh\n") -> bytes:
    def member(name: str, body: bytes) -> bytes:
        fields = [0, 0o100755, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(name) + 1, 0]
        head = b"070701" + "".join(f"{field:08x}" for field in fields).encode() + name.encode() + b"\0"
        head = head.ljust((len(head) + 3) & ~3, b"\0")
        return head + body.ljust((len(body) + 3) & ~3, b"\0")

    return member("init", data) + member("TRAILER!!!", b"")


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def iso() -> bytes:
    image = bytearray(40 * 2048)
    image[0x8000:0x8006] = b"\x01CD001"
    return bytes(image)


def multiboot() -> bytes:
    return bytes(64) + struct.pack("<III", 0x1BADB002, 3, (-0x1BADB002 - 3) % 2**32) + bytes(512)


def multiboot2() -> bytes:
    return bytes(64) + struct.pack("<IIII", 0xE85250D6, 0, 16, (-0xE85250D6 - 16) % 2**32) + bytes(512)


def elf(machine: int = 62) -> bytes:
    return b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HH", 2, machine) + bytes(200)


def ipxe_strings(version: str = "2.0.0+dfsg-5", *features: str, drivers: str = "snp", padding: bytes = b"\0") -> bytes:
    """The texts by which an iPXE build is told, between NULs as a compiler leaves them."""
    names = [b"iPXE", version.encode(), b" -- Open Source Network Boot Firmware -- ", b"Features:"]
    names += [feature.encode() for feature in features]
    names += {"snp": [b"SNPONLY"], "undi": [b"undionly"], "own": [b"SNPONLY", b"Digital DC21040 Tulip"]}[drivers]
    return bytes(range(256)) * 8 + padding + (b"\0" + padding).join(names) + b"\0" + bytes(4096)


def zbin(code: bytes, prefix: int = 5000) -> bytes:
    """An iPXE network boot program: a far jump, real-mode code with zeros in it, then the packed code."""
    packed = lzma.compress(
        code, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "lc": 2, "lp": 0, "pb": 0, "dict_size": 1 << 20}]
    )
    start = b"\xea\x05\x00\xc0\x07" + b"\x0f\xa8\x00\x00\x1e\x66\x68LRET.\x8c" * 400
    return start[:prefix].ljust(prefix, b"\x90") + packed


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    length = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big")
    return bytes([tag]) + length + body


def signature(*issuers: str) -> bytes:
    """An attribute certificate table with one Authenticode signature an issuer, as far as names go."""
    table = b""
    for issuer in issuers:
        common = der(0x30, der(0x06, b"\x55\x04\x03"), der(0x0C, issuer.encode()))
        country = der(0x30, der(0x06, b"\x55\x04\x06"), der(0x13, b"US"))
        name = der(0x30, der(0x31, country), der(0x31, common))
        info = der(0x30, der(0x02, b"\x01"), der(0x30, name, der(0x02, b"\x05")), der(0x30))
        content = der(0x30, der(0x06, b"\x2b\x06"))
        certificates = der(0xA0, der(0x30, b"\x05\x00" * 100))
        signed = der(0x30, der(0x02, b"\x01"), der(0x31, der(0x30)), content, certificates, der(0x31, info))
        pkcs7 = der(0x30, der(0x06, b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"), der(0xA0, signed))
        entry = struct.pack("<IHH", 8 + len(pkcs7), 0x0200, 2) + pkcs7
        table += entry.ljust((len(entry) + 7) & ~7, b"\0")
    return table
