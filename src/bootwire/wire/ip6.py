"""IPv6 packets with their extension headers (RFC 8200).

Addresses are 16 raw octets. The walk over extension headers ends at the upper layer, or behind a fragment header: what
follows that may be cut anywhere and is `walk`ed when it is whole.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from bootwire.wire.reader import WireError

# IANA, Assigned Internet Protocol Numbers
HOP_BY_HOP, ROUTING, FRAGMENT, NO_NEXT, DESTINATION_OPTIONS = 0, 43, 44, 59, 60

ANY = bytes(16)
ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")  # RFC 4291 section 2.7.1
ALL_ROUTERS = bytes.fromhex("ff020000000000000000000000000002")
MIN_MTU = 1280  # RFC 8200 section 5

HEADER = 40  # octets
EXTENSIONS_MAX = 8  # each kind once and destination options twice are 5 (RFC 8200 section 4.1)

_FIXED = struct.Struct("!IHBB16s16s")
_CHAIN = frozenset((HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS))


@dataclass(frozen=True, slots=True)
class Fragment:
    """offset: octets, a multiple of 8, 0..65528; identification: 0..2**32-1."""

    offset: int
    more: bool
    identification: int


@dataclass(frozen=True, slots=True)
class Ipv6:
    """One packet or fragment.

    protocol    of the upper layer; of a fragment, what its fragment header says comes next
    extensions  (header number, its octets without the first, which says what comes next), in order
    """

    source: bytes
    destination: bytes
    protocol: int
    payload: bytes
    hop_limit: int = 64
    traffic_class: int = 0
    flow: int = 0
    extensions: tuple[tuple[int, bytes], ...] = ()

    @property
    def fragment(self) -> Fragment | None:
        """What its fragment header says, None without one; it is the last extension then."""
        if not self.extensions or self.extensions[-1][0] != FRAGMENT:
            return None
        place, identification = struct.unpack_from("!HI", self.extensions[-1][1], 1)
        return Fragment(place & 0xFFF8, bool(place & 1), identification)


def parse(data: bytes, at: int = 0) -> Ipv6:
    """The packet at data[at:]; octets after its payload length are the frame's padding. Raises WireError."""
    if len(data) - at < HEADER:
        raise WireError("truncated IPv6 header", at)
    first, size, following, hop_limit, source, destination = _FIXED.unpack_from(data, at)
    if first >> 28 != 6:
        raise WireError(f"IP version {first >> 28}", at)
    at += HEADER
    if size > len(data) - at:
        raise WireError(f"IPv6 payload length {size}", at - HEADER + 4)
    body = bytes(data[at : at + size])
    extensions: tuple[tuple[int, bytes], ...] = ()
    if following in _CHAIN or following == FRAGMENT:
        following, body, extensions = walk(following, body)
    return Ipv6(source, destination, following, body, hop_limit, first >> 20 & 0xFF, first & 0xFFFFF, extensions)


def walk(following: int, body: bytes) -> tuple[int, bytes, tuple[tuple[int, bytes], ...]]:
    """Go over the extension headers of `body`, whose first is `following`: (protocol, payload, extensions)."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while following in _CHAIN or following == FRAGMENT:
        if len(found) == EXTENSIONS_MAX:
            raise WireError(f"more than {EXTENSIONS_MAX} extension headers", at)
        if len(body) - at < 8:
            raise WireError("truncated extension header", at)
        size = 8 if following == FRAGMENT else 8 * (1 + body[at + 1])
        if size > len(body) - at:
            raise WireError(f"extension header of {size} octets", at + 1)
        found.append((following, body[at + 1 : at + size]))
        stop = following == FRAGMENT
        following = body[at]
        at += size
        if stop:
            break
    return following, body[at:], tuple(found)


def emit(packet: Ipv6) -> bytes:
    """The octets of one packet. Raises WireError for what does not fit."""
    chain = [number for number, _ in packet.extensions] + [packet.protocol]
    middle = b"".join(bytes((after,)) + body for after, (_, body) in zip(chain[1:], packet.extensions, strict=True))
    size = len(middle) + len(packet.payload)
    if size > 0xFFFF:
        raise WireError(f"payload of {size} octets", HEADER)
    first = 6 << 28 | packet.traffic_class << 20 | packet.flow
    head = _FIXED.pack(first, size, chain[0], packet.hop_limit, packet.source, packet.destination)
    return b"".join((head, middle, packet.payload))


def fragment_header(fragment: Fragment) -> tuple[int, bytes]:
    """The extension that says so."""
    return FRAGMENT, struct.pack("!xHI", fragment.offset | fragment.more, fragment.identification)


def text(octets: bytes) -> str:
    """2001:db8::1 (RFC 5952)."""
    return str(ipaddress.IPv6Address(octets))


def octets(text: str) -> bytes:
    """Sixteen octets from an address without a zone. Raises WireError."""
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise WireError("not an IPv6 address", 0) from None
    if address.scope_id is not None:
        raise WireError("an IPv6 zone", 0)
    return address.packed


def link_local(mac: bytes) -> bytes:
    """fe80:: and the interface identifier made of a MAC address (RFC 4291 appendix A)."""
    return b"\xfe\x80" + bytes(6) + identifier(mac)


def identifier(mac: bytes) -> bytes:
    """Modified EUI-64: 8 octets."""
    return bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:]


def solicited_node(address: bytes) -> bytes:
    """The multicast group in which `address` is asked for (RFC 4291 section 2.7.1)."""
    return bytes.fromhex("ff0200000000000000000001ff") + address[13:]


def multicast_mac(group: bytes) -> bytes:
    """33:33 and the last four octets (RFC 2464 section 7)."""
    return b"\x33\x33" + group[12:]
