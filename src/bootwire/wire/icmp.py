"""ICMP (RFC 792, 1191) and ICMPv6 (RFC 4443) with neighbour discovery (RFC 4861).

One set of values serves both versions where they mean the same; `parse4`/`emit4` and `parse6`/`emit6` know the
numbers. Errors quote the packet that caused them, as far as it came.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bootwire.wire import checksum
from bootwire.wire.reader import WireError

PROTOCOL4, PROTOCOL6 = 1, 58  # IANA protocol numbers

# Types of RFC 792 and of RFC 4443/4861
ECHO_REPLY4, UNREACHABLE4, REDIRECT4, ECHO_REQUEST4, TIME_EXCEEDED4, PARAMETER4 = 0, 3, 5, 8, 11, 12
UNREACHABLE6, TOO_BIG6, TIME_EXCEEDED6, PARAMETER6, ECHO_REQUEST6, ECHO_REPLY6 = 1, 2, 3, 4, 128, 129
ROUTER_SOLICIT, ROUTER_ADVERT, NEIGHBOUR_SOLICIT, NEIGHBOUR_ADVERT, REDIRECT6 = 133, 134, 135, 136, 137

# Codes of "destination unreachable"
NET4, HOST4, PROTOCOL_CODE4, PORT4, FRAGMENT_NEEDED4 = 0, 1, 2, 3, 4
NO_ROUTE6, ADDRESS6, PORT6 = 0, 3, 4

# Options of RFC 4861 section 4.6
SOURCE_LINK, TARGET_LINK, PREFIX, MTU_OPTION = 1, 2, 3, 5
_DNS_SERVERS = 25  # RFC 8106 section 5.1


@dataclass(frozen=True, slots=True)
class Echo:
    """An echo request, or the reply to one. identifier, sequence: 0..65535."""

    reply: bool
    identifier: int
    sequence: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Problem:
    """An ICMP or ICMPv6 error, or a redirect.

    type, code  of the version's own registry, 0..255
    value       the second word as it is: next-hop MTU in "fragmentation needed" (low half, RFC 1191) and in "packet too
                big"; pointer in parameter problems; gateway in IPv4 redirects
    quote       the offending packet from its IP header on, usually cut short
    """

    type: int
    code: int
    value: int
    quote: bytes


@dataclass(frozen=True, slots=True)
class NeighbourSolicit:
    """Who has `target` (16 octets)? link: the sender's MAC, b"" in duplicate address detection."""

    target: bytes
    link: bytes = b""


@dataclass(frozen=True, slots=True)
class NeighbourAdvert:
    """`target` (16 octets) is at `link` (6 octets, b"" if left out)."""

    target: bytes
    link: bytes = b""
    router: bool = False
    solicited: bool = False
    override: bool = False


@dataclass(frozen=True, slots=True)
class RouterSolicit:
    link: bytes = b""


@dataclass(frozen=True, slots=True)
class Prefix:
    """A prefix information option. prefix: 16 octets, length: 0..128, lifetimes: seconds, 2**32-1 is for ever."""

    prefix: bytes
    length: int
    on_link: bool
    autonomous: bool
    valid: int
    preferred: int


@dataclass(frozen=True, slots=True)
class RouterAdvert:
    """hop_limit: 0 is "not said"; lifetime: seconds as a default router, 0 is "not one"; mtu: 0 is "not said".

    reachable, retransmit: milliseconds, 0 is "not said". dns: addresses of 16 octets (RFC 8106), without lifetimes.
    """

    hop_limit: int
    lifetime: int
    managed: bool = False
    other: bool = False
    reachable: int = 0
    retransmit: int = 0
    link: bytes = b""
    mtu: int = 0
    prefixes: tuple[Prefix, ...] = ()
    dns: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Other:
    """A type this stack has no use for. body: everything after the checksum."""

    type: int
    code: int
    body: bytes


Message4 = Echo | Problem | Other
Message6 = (
    Echo | Problem | NeighbourSolicit | NeighbourAdvert | RouterSolicit | RouterAdvert | Other
)  # fmt: skip

_ERRORS4 = frozenset((UNREACHABLE4, REDIRECT4, TIME_EXCEEDED4, PARAMETER4))
_OPTIONS_MAX = 64  # of one neighbour discovery message; a router advertisement of one MTU can hold more of 8 octets


def parse4(data: bytes) -> Message4:
    """An ICMP message; the checksum is the caller's to verify."""
    if len(data) < 8:
        raise WireError("truncated ICMP message", 0)
    kind, code = data[0], data[1]
    if kind in (ECHO_REQUEST4, ECHO_REPLY4) and code == 0:
        return _echo(data, kind == ECHO_REPLY4)
    if kind in _ERRORS4:
        return Problem(kind, code, int.from_bytes(data[4:8], "big"), data[8:])
    return Other(kind, code, data[4:])


def emit4(message: Message4) -> bytes:
    """The octets, checksum included."""
    return _fill(_octets4(message), 0)


def parse6(data: bytes) -> Message6:
    """An ICMPv6 message; the checksum, and hop limit 255 where RFC 4861 asks for it, are the caller's to verify."""
    if len(data) < 8:
        raise WireError("truncated ICMPv6 message", 0)
    kind, code = data[0], data[1]
    if kind in (ECHO_REQUEST6, ECHO_REPLY6) and code == 0:
        return _echo(data, kind == ECHO_REPLY6)
    if kind < 128 and kind in (UNREACHABLE6, TOO_BIG6, TIME_EXCEEDED6, PARAMETER6):
        return Problem(kind, code, int.from_bytes(data[4:8], "big"), data[8:])
    if kind == NEIGHBOUR_SOLICIT:
        target = _target(data)
        return NeighbourSolicit(target, _link(_options(data, 24), SOURCE_LINK))
    if kind == NEIGHBOUR_ADVERT:
        target = _target(data)
        flags = data[4]
        link = _link(_options(data, 24), TARGET_LINK)
        return NeighbourAdvert(target, link, bool(flags & 0x80), bool(flags & 0x40), bool(flags & 0x20))
    if kind == ROUTER_SOLICIT:
        return RouterSolicit(_link(_options(data, 8), SOURCE_LINK))
    if kind == ROUTER_ADVERT:
        return _router_advert(data)
    return Other(kind, code, data[4:])


def emit6(message: Message6, source: bytes, destination: bytes) -> bytes:
    """The octets, checksum included; packed addresses of the IPv6 header that will carry them."""
    octets = _octets6(message)
    return _fill(octets, checksum.pseudo(source, destination, PROTOCOL6, len(octets)))


def _octets4(message: Message4) -> bytes:
    match message:
        case Echo():
            return _emit_echo(message, ECHO_REPLY4, ECHO_REQUEST4)
        case Problem():
            return _emit_problem(message)
        case Other():
            return bytes((message.type, message.code, 0, 0)) + message.body


def _octets6(message: Message6) -> bytes:
    match message:
        case Echo():
            return _emit_echo(message, ECHO_REPLY6, ECHO_REQUEST6)
        case Problem():
            return _emit_problem(message)
        case NeighbourSolicit():
            head = bytes((NEIGHBOUR_SOLICIT, 0)) + bytes(6)
            return head + message.target + _emit_link(SOURCE_LINK, message.link)
        case NeighbourAdvert():
            flags = message.router << 7 | message.solicited << 6 | message.override << 5
            head = bytes((NEIGHBOUR_ADVERT, 0, 0, 0, flags, 0, 0, 0))
            return head + message.target + _emit_link(TARGET_LINK, message.link)
        case RouterSolicit():
            return bytes((ROUTER_SOLICIT, 0)) + bytes(6) + _emit_link(SOURCE_LINK, message.link)
        case RouterAdvert():
            return _emit_router_advert(message)
        case Other():
            return bytes((message.type, message.code, 0, 0)) + message.body


def _fill(octets: bytes, start: int) -> bytes:
    return octets[:2] + checksum.compute(octets, start).to_bytes(2, "big") + octets[4:]


def _echo(data: bytes, reply: bool) -> Echo:
    return Echo(reply, int.from_bytes(data[4:6], "big"), int.from_bytes(data[6:8], "big"), data[8:])


def _emit_echo(message: Echo, reply: int, request: int) -> bytes:
    kind = reply if message.reply else request
    return struct.pack("!BBHHH", kind, 0, 0, message.identifier, message.sequence) + message.data


def _emit_problem(message: Problem) -> bytes:
    return struct.pack("!BBHI", message.type, message.code, 0, message.value) + message.quote


def _target(data: bytes) -> bytes:
    if len(data) < 24:
        raise WireError("truncated neighbour discovery message", len(data))
    return data[8:24]


def _options(data: bytes, at: int) -> list[tuple[int, bytes]]:
    """(type, value) in order. Length zero makes the whole message invalid (RFC 4861 section 4.6)."""
    found: list[tuple[int, bytes]] = []
    while at < len(data):
        if len(data) - at < 8 or data[at + 1] == 0 or at + 8 * data[at + 1] > len(data):
            raise WireError("neighbour discovery option of a wrong length", at)
        if len(found) == _OPTIONS_MAX:
            raise WireError(f"more than {_OPTIONS_MAX} neighbour discovery options", at)
        end = at + 8 * data[at + 1]
        found.append((data[at], data[at + 2 : end]))
        at = end
    return found


def _link(options: list[tuple[int, bytes]], kind: int) -> bytes:
    """The MAC, b"" if there is none of Ethernet's size."""
    return next((value for number, value in options if number == kind and len(value) == 6), b"")


def _emit_link(kind: int, link: bytes) -> bytes:
    return bytes((kind, 1)) + link if link else b""


def _router_advert(data: bytes) -> RouterAdvert:
    if len(data) < 16:
        raise WireError("truncated router advertisement", len(data))
    hop_limit, flags, lifetime, reachable, retransmit = struct.unpack_from("!BBHII", data, 4)
    options = _options(data, 16)
    mtu = 0
    prefixes: list[Prefix] = []
    dns: list[bytes] = []
    for kind, value in options:
        if kind == MTU_OPTION and len(value) == 6:
            mtu = int.from_bytes(value[2:], "big")
        elif kind == PREFIX and len(value) == 30:
            length, bits, valid, preferred, _, prefix = struct.unpack("!BBIII16s", value)
            if length <= 128:
                prefixes.append(Prefix(prefix, length, bool(bits & 0x80), bool(bits & 0x40), valid, preferred))
        elif kind == _DNS_SERVERS and len(value) % 16 == 6:
            dns += [value[i : i + 16] for i in range(6, len(value), 16)]
    return RouterAdvert(
        hop_limit, lifetime, bool(flags & 0x80), bool(flags & 0x40), reachable, retransmit,
        _link(options, SOURCE_LINK), mtu, tuple(prefixes), tuple(dns),
    )  # fmt: skip


def _emit_router_advert(m: RouterAdvert) -> bytes:
    flags = m.managed << 7 | m.other << 6
    out = struct.pack("!BBHBBHII", ROUTER_ADVERT, 0, 0, m.hop_limit, flags, m.lifetime, m.reachable, m.retransmit)
    out += _emit_link(SOURCE_LINK, m.link)
    if m.mtu:
        out += struct.pack("!BBHI", MTU_OPTION, 1, 0, m.mtu)
    for p in m.prefixes:
        bits = p.on_link << 7 | p.autonomous << 6
        out += struct.pack("!BBBBIII16s", PREFIX, 4, p.length, bits, p.valid, p.preferred, 0, p.prefix)
    if m.dns:
        out += struct.pack("!BBHI", _DNS_SERVERS, 1 + 2 * len(m.dns), 0, m.lifetime) + b"".join(m.dns)
    return out
