"""IPv4 packets (RFC 791) and UDP datagrams (RFC 768).

Addresses are raw octets, 4 or 16 of them: they hash, compare and mask without conversion. Fragments are values like
any other; joining them is not a parser's business.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bootwire.wire.reader import Reader, WireError

# IANA, Assigned Internet Protocol Numbers
ICMP = 1
TCP = 6
UDP = 17

DONT_FRAGMENT = 2  # RFC 791 section 3.1, as the three flag bits read
MORE_FRAGMENTS = 1

ANY_V4 = bytes(4)
BROADCAST_V4 = b"\xff" * 4

_CHECKSUM = "header checksum"
_HEADER = struct.Struct("!BBHHHBBH4s4s")


@dataclass(frozen=True, slots=True)
class Ipv4:
    """One packet or fragment.

    source, destination  4 octets
    protocol             0..255
    ttl, tos             0..255; tos is DSCP (6 bits) and ECN (2)
    identification       0..65535
    flags                0..7: reserved, DONT_FRAGMENT, MORE_FRAGMENTS
    fragment             offset in units of 8 octets, 0..8191
    options              0..40 octets, a multiple of 4, not decoded
    payload              without the padding of the frame, at most 65,515 octets
    """

    source: bytes
    destination: bytes
    protocol: int
    payload: bytes
    ttl: int = 64
    tos: int = 0
    identification: int = 0
    flags: int = 0
    fragment: int = 0
    options: bytes = b""

    @property
    def is_fragment(self) -> bool:
        return self.fragment != 0 or bool(self.flags & MORE_FRAGMENTS)


@dataclass(frozen=True, slots=True)
class Udp:
    """One datagram. Ports 0..65535; payload at most 65,527 octets."""

    source: int
    destination: int
    payload: bytes


def parse_ipv4(data: bytes, at: int = 0) -> Ipv4:
    """Read the packet at data[at:]; octets after its total length (padding of the frame) are dropped.

    Raises WireError, for a wrong header checksum, too (RFC 1122 section 3.2.1.2: discard silently).
    """
    if len(data) - at < 20:
        raise WireError("truncated IPv4 header", at)
    start, tos, total, identification, place, ttl, protocol, _, source, destination = _HEADER.unpack_from(data, at)
    if start >> 4 != 4:
        raise WireError(f"IP version {start >> 4}", at)
    size = (start & 0x0F) * 4
    if size < 20 or size > len(data) - at:
        raise WireError(f"IPv4 header of {size} octets", at)
    if total < size:
        raise WireError(f"IPv4 total length {total}", at + 2)
    if checksum(data[at : at + size]) != 0:
        raise WireError(f"wrong {_CHECKSUM}", at + 10)
    if total > len(data) - at:
        raise WireError("truncated payload", at + size)
    payload = data[at + size : at + total]
    options = data[at + 20 : at + size]
    return Ipv4(source, destination, protocol, payload, ttl, tos, identification, place >> 13, place & 0x1FFF, options)


def emit_ipv4(packet: Ipv4) -> bytes:
    """The octets of one packet, header checksum included. Raises WireError for what does not fit in a header."""
    size = 20 + len(packet.options)
    if len(packet.options) > 40 or size % 4:
        raise WireError(f"options of {len(packet.options)} octets", 20)
    if size + len(packet.payload) > 0xFFFF:
        raise WireError(f"payload of {len(packet.payload)} octets", size)
    head = bytearray((0x40 | size // 4, packet.tos))
    head += (size + len(packet.payload)).to_bytes(2, "big")
    head += packet.identification.to_bytes(2, "big")
    head += (packet.flags << 13 | packet.fragment).to_bytes(2, "big")
    head += bytes((packet.ttl, packet.protocol, 0, 0))
    head += packet.source + packet.destination + packet.options
    head[10:12] = checksum(bytes(head)).to_bytes(2, "big")
    return bytes(head) + packet.payload


def parse_udp(data: bytes, source: bytes, destination: bytes, *, verify: bool = True) -> Udp:
    """Read the datagram that a packet from `source` to `destination` carries; octets after its length are dropped.

    verify: False where the checksum was left for hardware to fill in, as in frames that never left this host.
    A checksum of 0 means that the sender made none (RFC 768). Raises WireError.
    """
    r = Reader(data)
    ours, theirs, size, sent = r.u16("source port"), r.u16("destination port"), r.u16("length"), r.u16("checksum")
    if size < 8:
        raise WireError(f"UDP length {size}", 4)
    payload = r.take(size - 8, "UDP payload")
    if verify and sent and checksum(pseudo_header(source, destination, UDP, size) + data[:size]) != 0:
        raise WireError("wrong UDP checksum", 6)
    return Udp(ours, theirs, payload)


def emit_udp(datagram: Udp, source: bytes, destination: bytes) -> bytes:
    """The octets of one datagram, checksum included. Raises WireError for a payload that does not fit."""
    size = 8 + len(datagram.payload)
    if size > 0xFFFF:
        raise WireError(f"UDP payload of {len(datagram.payload)} octets", 8)
    head = datagram.source.to_bytes(2, "big") + datagram.destination.to_bytes(2, "big") + size.to_bytes(2, "big")
    made = checksum(pseudo_header(source, destination, UDP, size) + head + datagram.payload)
    return head + (made or 0xFFFF).to_bytes(2, "big") + datagram.payload  # RFC 768: a sum of 0 travels as ones


def checksum(data: bytes) -> int:
    """The Internet checksum, 0..65535 (RFC 1071); over octets that hold a right checksum it is 0.

    The ones' complement sum of 16-bit words is the whole number modulo 65535, which Python divides at C speed.
    """
    number = int.from_bytes(data if len(data) % 2 == 0 else data + b"\0", "big")
    return 0xFFFF - (number % 0xFFFF or (0xFFFF if number else 0))


def pseudo_header(source: bytes, destination: bytes, protocol: int, size: int) -> bytes:
    """What the checksums of UDP and TCP cover besides their own octets (RFC 768; for 16-octet addresses RFC 8200
    section 8.1). size: octets of header and payload.
    """
    if len(source) == 4:
        return b"".join((source, destination, b"\0", bytes((protocol,)), size.to_bytes(2, "big")))
    return b"".join((source, destination, size.to_bytes(4, "big"), b"\0\0\0", bytes((protocol,))))


def v4_text(octets: bytes) -> str:
    """192.168.1.20"""
    a, b, c, d = octets
    return f"{a}.{b}.{c}.{d}"


def v4_octets(text: str) -> bytes:
    """Four octets from strict dotted decimal (no leading zeros, RFC 6943 section 3.1.1). Raises WireError."""
    parts = text.split(".", 4)
    if len(parts) != 4 or not all(p.isascii() and p.isdecimal() and len(p) <= 3 for p in parts):
        raise WireError("not an IPv4 address", 0)
    numbers = [int(p) for p in parts]
    if max(numbers) > 255 or any(len(p) > 1 and p[0] == "0" for p in parts):
        raise WireError("not an IPv4 address", 0)
    return bytes(numbers)
