"""Captures: classic pcap written and read, pcapng read (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng).

Reading is streamed and bounded: octets come in chunks of any size, a declared length is never allocated before its
octets are there, and nothing but the record under way is kept. What is not a packet (options, statistics, names,
custom blocks) is skipped, whatever its size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bootwire.wire.reader import WireError

RECORD_LIMIT = 262_144
"""Octets of one captured packet: libpcap's MAXIMUM_SNAPLEN, which tcpdump and Wireshark keep to, too."""

# LINKTYPE_ values, tcpdump.org/linktypes.html
NULL = 0
ETHERNET = 1
RAW_IP = 101
LOOP = 108
LINUX_SLL = 113
LINUX_SLL2 = 276

_SECOND = 1_000_000_000  # nanoseconds
_MICROSECONDS, _NANOSECONDS = 0xA1B2C3D4, 0xA1B23C4D
_LINK_MASK = 0x03FF_FFFF  # above it: FCS length and flags

_SECTION, _INTERFACE, _PACKET, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
_BYTE_ORDER = 0x1A2B3C4D
_TIME_RESOLUTION, _TIME_OFFSET = 9, 14  # if_tsresol, if_tsoffset
_INTERFACE_LIMIT = 4_096  # interfaces of a section, and 64 KiB for each description: far more than any writer uses
_DESCRIPTION_LIMIT = 65_536


@dataclass(frozen=True, slots=True)
class Packet:
    """One captured packet.

    at         nanoseconds since the Unix epoch; 0 where the file does not say (pcapng's simple packets)
    data       what was captured of it, at most RECORD_LIMIT octets
    size       octets that it had on the wire
    link       LINKTYPE_ of its first header
    interface  number within the section (pcapng), else 0
    """

    at: int
    data: bytes
    size: int
    link: int = ETHERNET
    interface: int = 0


def file_header(link: int = ETHERNET, *, nanoseconds: bool = True) -> bytes:
    """The 24 octets that begin a classic pcap file, little-endian, version 2.4."""
    return struct.pack("<IHHiIII", _NANOSECONDS if nanoseconds else _MICROSECONDS, 2, 4, 0, 0, RECORD_LIMIT, link)


def record(at: int, data: bytes | memoryview, size: int, *, nanoseconds: bool = True) -> bytes:
    """One packet for a file that `file_header` began with the same resolution.

    at: nanoseconds since the Unix epoch, below 2^32 seconds (the year 2106); size: octets on the wire; what is beyond
    RECORD_LIMIT is cut.
    """
    kept = data[:RECORD_LIMIT]
    seconds, fraction = divmod(at, _SECOND)
    return struct.pack("<IIII", seconds, fraction if nanoseconds else fraction // 1000, len(kept), size) + kept


def read(chunks: Iterable[bytes]) -> Iterator[Packet]:
    """The packets of a capture, either format, in the order of the file.

    Yields every packet before the damage, then raises WireError; a file cut in the middle of a packet is damage, too.
    """
    source = _Source(chunks)
    magic = source.peek(4, "file header")
    if int.from_bytes(magic, "big") == _SECTION:
        return _read_pcapng(source)
    for order in ("<", ">"):
        number = struct.unpack(order + "I", magic)[0]
        if number in (_MICROSECONDS, _NANOSECONDS):
            return _read_pcap(source, order, 1 if number == _NANOSECONDS else 1000)
    raise WireError(f"not a capture: it begins with {magic.hex()}", 0)


class _Source:
    """Chunks as one stream. `at` is the offset of the next octet."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.at = 0
        self._chunks = iter(chunks)
        self._held = bytearray()

    def peek(self, size: int, what: str) -> bytes:
        while len(self._held) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise WireError(f"truncated {what}", self.at)
            self._held += chunk
        return bytes(self._held[:size])

    def take(self, size: int, what: str) -> bytes:
        taken = self.peek(size, what)
        del self._held[:size]
        self.at += size
        return taken

    def skip(self, size: int, what: str) -> None:
        """Pass over octets without keeping them."""
        while size:
            step = min(size, max(len(self._held), 1))
            self.take(step, what)
            size -= step

    def ended(self) -> bool:
        while not self._held:
            chunk = next(self._chunks, None)
            if chunk is None:
                return True
            self._held += chunk
        return False


def _read_pcap(source: _Source, order: str, tick: int) -> Iterator[Packet]:
    header = struct.Struct(order + "IHHiIII")
    _, major, minor, _, _, _, link = header.unpack(source.take(header.size, "file header"))
    if major != 2:
        raise WireError(f"pcap version {major}.{minor}", 4)
    head = struct.Struct(order + "IIII")
    while not source.ended():
        start = source.at
        seconds, fraction, kept, size = head.unpack(source.take(head.size, "record header"))
        if kept > RECORD_LIMIT:
            raise WireError(f"record of {kept} octets", start)
        yield Packet(seconds * _SECOND + fraction * tick, source.take(kept, "record"), size, link & _LINK_MASK)


@dataclass(frozen=True, slots=True)
class _Described:
    """An interface of a section. snap: octets kept of a packet, 0 for all; ticks: in a second; offset: seconds."""

    link: int
    snap: int
    ticks: int
    offset: int


def _read_pcapng(source: _Source) -> Iterator[Packet]:
    order = "<"
    interfaces: list[_Described] = []
    while not source.ended():
        start = source.at
        kind = struct.unpack(order + "I", source.peek(4, "block"))[0]
        if kind == _SECTION:  # the same in both orders
            order = _section_order(source, start)
            interfaces = []
        kind, total = struct.unpack(order + "II", source.take(8, "block header"))
        if total < 12 or total % 4:
            raise WireError(f"block of {total} octets", start)
        end = start + total - 4
        if kind == _INTERFACE:
            if len(interfaces) == _INTERFACE_LIMIT or total > _DESCRIPTION_LIMIT:
                raise WireError(f"interface {len(interfaces)} with a description of {total} octets", start)
            interfaces.append(_described(source.take(total - 12, "interface description"), order, start))
        elif kind in (_ENHANCED, _PACKET):
            yield _enhanced(source, order, interfaces, end, old=kind == _PACKET)
        elif kind == _SIMPLE:
            yield _simple(source, order, interfaces, end)
        source.skip(end - source.at, "block")
        if struct.unpack(order + "I", source.take(4, "block trailer"))[0] != total:
            raise WireError(f"block of {total} octets that ends otherwise", start)


def _section_order(source: _Source, start: int) -> str:
    """The byte order of the section that begins here; nothing is taken."""
    head = source.peek(16, "section header")
    for order in ("<", ">"):
        _, mark, major, minor = struct.unpack(order + "IIHH", head[4:])
        if mark == _BYTE_ORDER:
            if major != 1:
                raise WireError(f"pcapng version {major}.{minor}", start + 12)
            return order
    raise WireError("section without byte-order mark", start + 8)


def _described(body: bytes, order: str, start: int) -> _Described:
    if len(body) < 8:
        raise WireError(f"interface description of {len(body)} octets", start)
    link, _, snap = struct.unpack_from(order + "HHI", body)
    ticks, offset, at = 1_000_000, 0, 8
    while at + 4 <= len(body):
        code, size = struct.unpack_from(order + "HH", body, at)
        if code == 0 or at + 4 + size > len(body):
            break
        value = body[at + 4 : at + 4 + size]
        if code == _TIME_RESOLUTION and size == 1:
            ticks = 1 << (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == _TIME_OFFSET and size == 8:
            offset = struct.unpack(order + "q", value)[0]
        at += 4 + size + -size % 4
    return _Described(link, snap, ticks, offset)


def _enhanced(source: _Source, order: str, interfaces: list[_Described], end: int, *, old: bool) -> Packet:
    """A packet block; an `old` one (appendix A) counts dropped packets in half of the interface's field."""
    start = source.at
    if end - start < 20:
        raise WireError("truncated packet block", start)
    number, high, low, kept, size = struct.unpack(order + "IIIII", source.take(20, "packet block"))
    if old:
        number = number & 0xFFFF if order == "<" else number >> 16
    if number >= len(interfaces):
        raise WireError(f"packet of interface {number}, which is not described", start)
    if kept > RECORD_LIMIT or kept > end - source.at:
        raise WireError(f"packet of {kept} octets", start + 12)
    about = interfaces[number]
    at = (high << 32 | low) * _SECOND // about.ticks + about.offset * _SECOND
    return Packet(at, source.take(kept, "packet"), size, about.link, number)


def _simple(source: _Source, order: str, interfaces: list[_Described], end: int) -> Packet:
    start = source.at
    if not interfaces:
        raise WireError("packet of interface 0, which is not described", start)
    if end - start < 4:
        raise WireError("truncated packet block", start)
    size = struct.unpack(order + "I", source.take(4, "packet block"))[0]
    kept = min(size, interfaces[0].snap or size, end - source.at)
    if kept > RECORD_LIMIT:
        raise WireError(f"packet of {kept} octets", start)
    return Packet(0, source.take(kept, "packet"), size, interfaces[0].link)
