"""Hostile input for each protocol: by hand what once broke a server, and seeded mutations of real messages.

Same seed, same octets. The hand-made ones name the class of failure; sources are public reports of other software
(CVE-2018-20679, CVE-2019-5747, CVE-2019-6472 … -6474, CVE-2011-3192, KB3073881) and the RFCs' own limits.
"""

from __future__ import annotations

import os
import random
import socket
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bootwire.wire import report, tftp
from dhcp_samples import NAMES, vector
from good_client import PROBE
from vector_files import names, octets

CANARY = b"what lies beside the published directory"

HOSTILE_TEXTS = (
    b"\n", b"\r\nSet-Cookie: a=b", b"\x1b[2J\x1b]0;owned\x07", "\u202egnp.exe".encode(), "\u2028\u0085\x0b".encode(),
    b"${net0/mac}", b"${cmd:poweroff}", b"{0.__class__}", b"%(x)s%n%s", b"$(reboot)", b"`reboot`", b"'; DROP TABLE",
    b"\0", b"\xff" * 200, b"a" * 255, b"../" * 80, b"{{7*7}}", b"<script>", "١٠٢٤".encode(), b"\xc0\xaf..\xc0\xaf",
    b"iPXE", b"PXEClient",
)  # fmt: skip

TRAVERSALS = (
    b"../secret", b"/../secret", b"a/../../secret", b"..\\secret", b"....//secret", b"..%2fsecret", b"%2e%2e/secret",
    b"..%c0%afsecret", b"/etc/shadow", b"//etc/shadow", b"\\\\.\\secret", b"C:\\secret", b"../pub-private/secret",
    b"secret\0.efi", b"out", b"out-dir/secret", b"loop", b"fifo", b"zero", b"sock", b".", b"..", b"", b"/", b"pub",
    b"a" * 400, b"a/" * 200,
)  # fmt: skip
"""Names that lead to CANARY or to something that no server should open, in a directory as `tree` makes it."""


def tree(place: Path) -> Path:
    """A directory to publish with everything in it that might lead out of it or hold a reader up; `probe` is good."""
    (place / "secret").write_bytes(CANARY)
    (place / "pub-private").mkdir()
    (place / "pub-private" / "secret").write_bytes(CANARY)
    pub = place / "pub"
    pub.mkdir()
    (pub / "probe").write_bytes(PROBE)
    (pub / "out").symlink_to("../secret")
    (pub / "out-dir").symlink_to("..")
    (pub / "loop").symlink_to("loop")
    os.mkfifo(pub / "fifo")
    os.mknod(pub / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(pub / "sock"))
    return pub


def dhcp(seed: int, count: int) -> list[bytes]:
    """Datagrams for ports 67 and 4011."""
    return _stream(seed, count, [vector(name) for name in NAMES], _dhcp_by_hand())


def tftp_packets(seed: int, count: int) -> list[bytes]:
    """Datagrams for port 69."""
    good = [
        _rrq(b"probe", (b"tsize", b"0"), (b"blksize", b"1468"), (b"windowsize", b"4"), (b"timeout", b"3")),
        _rrq(b"52-54-00-12-34-56/x86_64/snponly.efi", (b"blksize", b"1468")),
        tftp.emit(tftp.WriteRequest(b"new", b"octet")),
        tftp.emit(tftp.Ack(1)),
        tftp.emit(tftp.Data(1, bytes(64))),
        tftp.emit(tftp.OptionAck(((b"blksize", b"512"),))),
    ]
    return _stream(seed, count, good, _tftp_by_hand())


def http_requests(seed: int, count: int) -> list[bytes]:
    """What a connection to port 80 may begin with."""
    good = [
        _get(b"/boot.ipxe?mac=52:54:00:12:34:56&platform=efi", b"User-Agent: iPXE/2.0.0", b"Connection: keep-alive"),
        _get(b"/files/probe", b"Range: bytes=0-99", b'If-None-Match: "x"'),
        _get(b"/boot/52-54-00-12-34-56/kernel", b"User-Agent: UefiHttpBoot/1.0"),
        _get(b"/files/probe").replace(b"GET", b"HEAD"),
        b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
    ]
    return _stream(seed, count, good, _http_by_hand())


def bootinfo_packets(seed: int, count: int) -> list[bytes]:
    """Datagrams for port 6969."""
    good = [octets("bootinfo", name) for name in names("bootinfo")]
    return _stream(seed, count, good, _bootinfo_by_hand())


def reports(seed: int, count: int) -> list[bytes]:
    """Datagrams for port 6971."""
    return _stream(seed, count, [*_reports()], _reports_by_hand())


# --- by hand -----------------------------------------------------------------------------------------------------


def _dhcp_by_hand() -> Iterator[bytes]:
    whole = vector("edk2-x64-discover")
    head, options = whole[:240], whole[240:]
    for size in (0, 1, 2, 27, 28, 43, 44, 107, 108, 235, 236, 239, 240, 241, 242, 243, len(whole) - 1):
        yield whole[:size]
    yield b"default send string"  # a load balancer's probe
    yield head[:236] + b"\x63\x82\x53\x62" + options
    for at, values in ((0, (0, 2, 3, 255)), (1, (0, 6, 255)), (2, (0, 1, 5, 7, 16, 17, 255)), (3, (1, 255))):
        for value in values:
            yield whole[:at] + bytes([value]) + whole[at + 1 :]
    for address in (b"\xff" * 4, b"\xe0\0\0\1", b"\x7f\0\0\1", b"\0\0\0\1", b"\x0a\x09\0\1", b"\x0a\x09\0\xff"):
        for at in (12, 16, 20, 24):  # ciaddr, yiaddr, siaddr, giaddr
            yield whole[:at] + address + whole[at + 4 :]
    for code in (12, 43, 50, 52, 53, 54, 55, 57, 60, 61, 66, 67, 77, 81, 82, 93, 94, 97, 119, 175, 209, 254):
        for length in (0, 1, 2, 3, 4, 15, 16, 17, 255):
            yield head + bytes([53, 1, 1, code, length])  # a length that lies
            yield head + bytes([code, length]) + b"\xff" * length + options
            yield head + bytes([code, length]) + bytes(length) + options
        for text in HOSTILE_TEXTS:
            yield head + bytes([code, len(text)]) + text + options
    nested = b""
    for _ in range(60):
        nested = bytes([43, min(len(nested), 253)]) + nested[:253]
    yield head + nested + options
    yield head + bytes([52, 1, 3]) + options  # overload: file and sname hold options, which say overload again
    yield (
        head[:44]
        + bytes([52, 1, 3, 255]).ljust(64, b"\0")
        + bytes([52, 1, 3, 255]).ljust(128, b"\0")
        + head[236:]
        + bytes([52, 1, 3, 53, 1, 1, 255])
    )
    yield head + bytes([0]) * 15_000 + options
    yield head + bytes([77, 0]) * 7_000 + options
    yield head + bytes([77, 255]) + bytes(255) * 3 + options
    yield head + b"".join(bytes([code, 1, 0]) for code in range(1, 255)) * 20
    yield head + bytes([53, 1, 1]) + b"".join(bytes([67, 255]) + b"a" * 255 for _ in range(60)) + b"\xff"
    for kind in range(20):
        yield head + bytes([53, 1, kind]) + options[3:]
    for size in (0, 1, 235, 300, 575, 1501, 65535):
        yield head + bytes([57, 2]) + size.to_bytes(2, "big") + options


def _bootinfo_by_hand() -> Iterator[bytes]:
    whole = octets("bootinfo", "request")
    for size in (0, 1, 2, 4, 7, 8, 12, 16, 256, 272, 519, 521, 1_472, 2_048, 9_000):
        yield whole[:size].ljust(size, b"\xff")
    for opcode in (*range(-2, 9), 255, 256, 0x0100, 0x7FFF, -0x8000):
        for version in (-1, 0, 1, 2, 255):
            yield struct.pack("<hhi", version, opcode, 0) + whole[8:]
            yield struct.pack("<hhi", version, opcode, -1) + b"\xff" * 512
    yield struct.pack(">hhi", 1, 1, 0) + whole[8:]  # as big-endian hosts sent it
    for kind in range(-1, 12):
        for opcode in (2, 4):
            yield struct.pack("<hhihh", 1, opcode, 0, 1, kind) + b"A" * 508  # no NUL anywhere
    for text in HOSTILE_TEXTS:
        yield struct.pack("<hhi", 1, 6, 0) + text[:512].ljust(512, b"\0")  # as a host key
        yield struct.pack("<hhi", 1, 1, 0) + (b"bootwire1 " + text)[:512].ljust(512, b"\0")  # as an identity
        yield struct.pack("<hhi", 1, 3, 0) + (b"bootwire1 " + text)[:512].ljust(512, b"\0")
    yield struct.pack("<hhi", 1, 1, 0) + b"bootwire1 " + b"A" * 502


def _reports() -> Iterator[bytes]:
    machine = report.Mac(bytes.fromhex("525400770001"))
    for items in (
        (report.Program(b"hello 1"), machine, report.Pxe(0x0201, (2, 1, 0)), report.Memory(((0, 640 << 10, 1),))),
        (machine, report.Disk(0x80, 2, 512, 131072, 0, 0, 0, b"ATA"), report.Label(0x80, 2, bytes(range(16)))),
        (machine, report.Partition(0x80, 1, 0, 1, 2, bytes(16), bytes(16), "name".encode("utf-16-le"))),
        (machine, report.Cpuid(0, 0, 13, 1, 2, 3), report.Smbios(b"\1\x1b\0\1" + bytes(23) + b"Maker\0\0")),
        (machine, report.Note(b"ask: no answer")),
    ):
        for part in (0, 1, 15):
            yield report.emit(report.Report(part, report.BIOS, 0, items, part, part + 1))


def _reports_by_hand() -> Iterator[bytes]:
    whole = next(_reports())
    for size in (0, 1, 4, 16, 19, 20, 21, 23, 24, 1_472, 1_473, 2_048, 9_000):
        yield whole[:size].ljust(size, b"\xff")
    for at in range(20):
        for octet in (0, 1, 2, 16, 17, 0x7F, 0x80, 0xFF):
            yield whole[:at] + bytes((octet,)) + whole[at + 1 :]
    for kind in range(18):
        for size in (0, 1, 2, 4, 5, 8, 16, 20, 24, 28, 29, 44, 60, 61, 255, 1_400):
            body = struct.pack("<HH", kind, size) + b"\xff" * size
            yield whole[:16] + struct.pack("<HH", 20 + len(body), 0) + body
            yield whole[:16] + struct.pack("<HH", 20 + len(body), 0) + body[:2] + b"\xff\xff" + body[4:]
    for text in HOSTILE_TEXTS:
        yield report.emit(report.Report(7, 1, 0, (report.Mac(b"\2" * 6), report.Note(text), report.Program(text))))
    empty = struct.pack("<HH", 99, 0) * 300
    yield whole[:16] + struct.pack("<HH", 20 + len(empty), 0) + empty


def _tftp_by_hand() -> Iterator[bytes]:
    rrq = b"\0\1probe\0octet\0"
    for size in range(len(rrq)):
        yield rrq[:size]
    for opcode in (0, 3, 4, 5, 6, 7, 8, 255, 256, 0x0100, 0xFFFF):
        yield opcode.to_bytes(2, "big")
        yield opcode.to_bytes(2, "big") + rrq[2:]
        yield opcode.to_bytes(2, "big") + b"\0\1" + bytes(600)
    for mode in (b"OCTET", b"oCtEt", b"netascii", b"mail", b"binary", b"", b"octet\xff", b"o" * 400):
        yield b"\0\1probe\0" + mode + b"\0"
    numbers = (
        b"", b"0", b"-1", b"+512", b" 512", b"512 ", b"5_1_2", b"0x200", b"1e3", "١٠٢٤".encode(), b"9" * 400, b"7",
        b"8", b"65464", b"65465", b"4294967296", b"\xff", b"512\n", b"00000000512",
    )  # fmt: skip
    for name in (b"blksize", b"tsize", b"timeout", b"windowsize", b"multicast", b"", b"BLKSIZE", b"x" * 300):
        for number in numbers:
            yield _rrq(b"probe", (name, number))
            yield _rrq(b"probe", (name, number), (name, b"512"))
    yield _rrq(b"probe", *[(b"o%d" % number, b"1") for number in range(80)])
    yield b"\0\1probe\0octet\0" + b"\0" * 480
    yield b"\0\1" + b"a" * 509
    yield b"\0\1" + b"a" * 60_000
    yield rrq[:-1]
    yield b"\0\1probe\0octet\0blksize"
    yield b"\0\1probe\0octet\0blksize\0"
    yield b"\0\1probe\0octet\0blksize\x00512"
    for name in (*TRAVERSALS, *HOSTILE_TEXTS):
        yield b"\0\1" + name[:450] + b"\0octet\0"
        yield b"\0\2" + name[:450] + b"\0octet\0"


def _http_by_hand() -> Iterator[bytes]:
    yield b""
    for line in (
        b"GET", b"GET ", b"GET /", b"GET / ", b"GET / HTTP/9.9", b"GET / HTTP/1.1.1", b"GET / http/1.1",
        b"get / HTTP/1.1", b"GET  / HTTP/1.1", b"GET\t/\tHTTP/1.1", b"\0GET / HTTP/1.1", b" GET / HTTP/1.1",
        b"GET / HTTP/1.1 ", b"G" * 9000, b"GET /" + b"a" * 9000 + b" HTTP/1.1", b"GET /%00 HTTP/1.1",
        b"GET /%zz HTTP/1.1", b"GET /\xff HTTP/1.1", b"GET http://127.0.0.1:1/x HTTP/1.1",
        b"CONNECT 127.0.0.1:22 HTTP/1.1", b"GET file:///etc/shadow HTTP/1.1", b"OPTIONS * HTTP/1.1", b"PRI * HTTP/2.0",
        b"TRACE / HTTP/1.1", b"DELETE /files/probe HTTP/1.1", b"PUT /files/probe HTTP/1.1",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"SSH-2.0-x", b"*1\r\n$4\r\nPING", b"\r\n\r\n\r\n",
    ):  # fmt: skip
        yield line + b"\r\n\r\n"
        yield line + b"\r\nHost: h\r\n\r\n"
        yield line
    for field in (
        b"Host", b": x", b" folded", b"A: b\r\n c", b"A\0: b", b"A : b", b"A: b\0", b"A: " + b"x" * 40_000,
        b"\r\nA: b", b"A: \xff\xfe", b"=: x", b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: -1",
        b"Content-Length: 18446744073709551616", b"Content-Length: 1_0", b"Content-Length: +5",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked, x", b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", b"Expect: 100-continue", b"Upgrade: h2c\r\nConnection: Upgrade",
        b"Connection: close, keep-alive", b"Host: a\r\nHost: b", b"If-Modified-Since: Mon, 99 Foo 0000 99:99:99 GMT",
        b'If-None-Match: "' + b"x" * 7000, b"If-Range: *", b"Accept-Encoding: " + b"gzip;q=1," * 2000,
    ):  # fmt: skip
        yield _get(b"/files/probe", field)
        yield _get(b"/boot.ipxe?mac=x", field)
    for part in (
        b"0-", b"-0", b"-1", b"5-2", b"99999999999-", b"-99999999999", b"a-b", b"0-0,1-1", b"0-,0-,0-,0-,0-,0-",
        b"\xd9\xa1-", b"1_0-20", b"", b"-", b",".join(b"%d-%d" % (number, number + 1) for number in range(1300)),
    ):  # fmt: skip
        yield _get(b"/files/probe", b"Range: bytes=" + part)
        yield _get(b"/files/probe", b"Range: " + part)
    yield b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: x\r\n" % number for number in range(5000)) + b"\r\n"
    yield b"GET / HTTP/1.1\r\n" + b"A:b\r\n" * 50_000
    yield b"A" * 200_000
    yield b"\r\n" * 100_000
    yield _get(b"/files/probe") * 200  # pipelined
    for name in (*TRAVERSALS, *HOSTILE_TEXTS):
        for room in (b"/", b"/files/", b"/boot/", b"/boot/52-54-00-12-34-56/", b"/boot.ipxe?mac=", b"//"):
            yield _get(room + name)
            yield _get(room + b"".join(b"%%%02x" % octet for octet in name))


# --- by chance ---------------------------------------------------------------------------------------------------


def _stream(seed: int, count: int, good: Sequence[bytes], by_hand: Iterator[bytes]) -> list[bytes]:
    """All that was made by hand, then mutations of that and of the good ones, `count` in all."""
    rng = random.Random(seed)
    made = dict.fromkeys(by_hand)  # in order, none twice
    assert len(made) < count
    samples = [*good * 20, *(one for one in made if len(one) < 2000)]
    while len(made) < count:
        made[_mutated(rng, bytearray(rng.choice(samples)), samples)] = None
    return list(made)


def _mutated(rng: random.Random, data: bytearray, samples: Sequence[bytes]) -> bytes:
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.randrange(1, 20))
        rng.choice(_MUTATIONS)(rng, data, at, to)
    if rng.random() < 0.1:
        data += rng.choice(samples)[len(data) :]
    return bytes(data)


def _flip(rng: random.Random, data: bytearray, at: int, _to: int) -> None:
    if at < len(data):
        data[at] ^= 1 << rng.randrange(8)


def _overwrite(rng: random.Random, data: bytearray, at: int, _to: int) -> None:
    if at < len(data):
        data[at] = rng.choice((0, 1, 0x0A, 0x20, 0x2B, 0x34, 0x52, 0x7F, 0x80, 0xFE, 0xFF))


def _cut(_rng: random.Random, data: bytearray, at: int, to: int) -> None:
    del data[at:to]


def _repeat(rng: random.Random, data: bytearray, at: int, to: int) -> None:
    data[at:at] = data[at:to] * rng.randrange(1, 8)


def _insert(rng: random.Random, data: bytearray, at: int, to: int) -> None:
    data[at:at] = rng.randbytes(to - at)


def _shorten(_rng: random.Random, data: bytearray, at: int, _to: int) -> None:
    del data[at:]


_MUTATIONS: tuple[Callable[[random.Random, bytearray, int, int], None], ...] = (
    _flip, _flip, _overwrite, _overwrite, _cut, _repeat, _insert, _shorten,
)  # fmt: skip


def _rrq(name: bytes, *options: tuple[bytes, bytes]) -> bytes:
    """By hand, since `tftp.emit` may refuse what these say."""
    return b"\0\1" + name + b"\0octet\0" + b"".join(part + b"\0" for option in options for part in option)


def _get(path: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join((b"GET " + path + b" HTTP/1.1", b"Host: 10.9.0.1", *fields, b"", b""))
