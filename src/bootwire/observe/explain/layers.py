"""One captured packet down to who says what to whom: link, IP and transport headers off, as far as they are there.

Lenient where a capture differs from a wire: checksums that hardware fills in later, packets cut at the snap length,
segments longer than any MTU. IPv4 and IPv6; anything else is nobody's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from bootwire.engine.ip.fragments import Reassembly
from bootwire.wire import arp, ethernet, icmp, ip, ip6, pcap, tcp
from bootwire.wire.ip import Ipv4
from bootwire.wire.reader import WireError

UDP, TCP = ip.UDP, ip.TCP


@dataclass(frozen=True, slots=True)
class Peeled:
    """What a packet says.

    at            nanoseconds since the Unix epoch
    source_mac    with colons, "" where the link does not tell
    source destination   addresses as text; "" for ARP
    sport dport   0 without ports
    body          UDP payload, a tcp.Segment, an ICMP message, an ARP message
    cut           octets of it are missing: the capture kept less than there was
    fragments     of how many fragments it was put together; 1 for a whole one
    key           what those had in common, None for a whole one
    """

    at: int
    source_mac: str
    source: str
    destination: str
    body: bytes | tcp.Segment | icmp.Message4 | icmp.Message6 | arp.Message
    sport: int = 0
    dport: int = 0
    cut: bool = False
    fragments: int = 1
    vlan: int = -1
    key: tuple[str, str, int] | None = None


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece that waits for others. key: the datagram it belongs to."""

    key: tuple[str, str, int]


class Layers:
    """Peels packets in the order of the capture; keeps only fragments, within Reassembly's bounds."""

    def __init__(self) -> None:
        self._pieces = Reassembly()
        self._counts: dict[object, int] = {}

    def peel(self, packet: pcap.Packet) -> Peeled | Fragment | None:
        """Total: None for what is no IP, no ARP, or damaged."""
        try:
            mac, vlan, ethertype, data = _link(packet)
            cut = packet.size > len(packet.data)
            if ethertype == ethernet.ARP:
                return Peeled(packet.at, mac, "", "", arp.parse(data), vlan=vlan)
            if ethertype == ethernet.IPV4:
                return self._over_v4(packet.at, mac, vlan, _lenient_v4(data), cut)
            if ethertype == ethernet.IPV6:
                whole = _padded_v6(data) if cut else data
                six = ip6.parse(whole)
                if six.fragment is not None:
                    return None
                end = min(len(six.payload), max(0, len(six.payload) - (len(whole) - len(data))))
                payload = six.payload[:end] if cut else six.payload
                seen = Peeled(packet.at, mac, ip6.text(six.source), ip6.text(six.destination), b"", cut=cut, vlan=vlan)
                return _transport(seen, six.protocol, payload, six=True)
        except (WireError, struct.error):
            return None
        return None

    def _over_v4(self, at: int, mac: str, vlan: int, four: Ipv4, cut: bool) -> Peeled | Fragment | None:
        source, destination = ip.v4_text(four.source), ip.v4_text(four.destination)
        payload, pieces = four.payload, 1
        key: tuple[str, str, int] | None = None
        if four.is_fragment:
            key = (source, destination, four.identification)
            self._pieces.tick(at)
            if len(self._counts) > 256:
                self._counts.clear()
            self._counts[key] = self._counts.get(key, 0) + 1
            more = bool(four.flags & ip.MORE_FRAGMENTS)
            whole = self._pieces.put(key, four.fragment * 8, more, payload, at)
            if not isinstance(whole, bytes):
                return Fragment(key)
            payload, pieces = whole, self._counts.pop(key, 2)
        seen = Peeled(at, mac, source, destination, b"", cut=cut, fragments=pieces, vlan=vlan, key=key)
        return _transport(seen, four.protocol, payload, six=False)


def _link(packet: pcap.Packet) -> tuple[str, int, int, bytes]:
    """(source MAC, VLAN or -1, ethertype, what is in it)"""
    data = packet.data
    if packet.link == pcap.ETHERNET:
        frame = ethernet.parse(data)
        vlan = frame.tags[-1].vlan if frame.tags else -1
        return ethernet.mac_text(frame.source), vlan, frame.ethertype, frame.payload
    if packet.link == pcap.RAW_IP or packet.link in _RAW:
        if not data:
            raise WireError("truncated packet", 0)
        return "", -1, ethernet.IPV6 if data[0] >> 4 == 6 else ethernet.IPV4, data
    if packet.link == pcap.LINUX_SLL:  # tcpdump.org/linktypes/LINKTYPE_LINUX_SLL
        if len(data) < 16:
            raise WireError("truncated header", 0)
        size = int.from_bytes(data[4:6], "big")
        return _mac(data[6:12], size), *_tagged(int.from_bytes(data[14:16], "big"), data[16:])
    if packet.link == pcap.LINUX_SLL2:  # tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2
        if len(data) < 20:
            raise WireError("truncated header", 0)
        return _mac(data[12:18], data[11]), *_tagged(int.from_bytes(data[0:2], "big"), data[20:])
    if packet.link in (pcap.NULL, pcap.LOOP):  # an address family in the writer's octet order, or the network's
        if len(data) < 4:
            raise WireError("truncated header", 0)
        family = int.from_bytes(data[:4], "big")
        ethertype = _FAMILIES.get(family if family < 0x10000 else int.from_bytes(data[:4], "little"), 0)
        return "", -1, ethertype, data[4:]
    raise WireError(f"link type {packet.link}", 0)


_RAW = (12, 228, 229)  # DLT_RAW as old files have it, LINKTYPE_IPV4, LINKTYPE_IPV6
_FAMILIES = {2: ethernet.IPV4, 10: ethernet.IPV6, 24: ethernet.IPV6, 28: ethernet.IPV6, 30: ethernet.IPV6}
"""AF_INET and the AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, macOS (tcpdump.org/linktypes/LINKTYPE_NULL)."""


def _mac(octets: bytes, size: int) -> str:
    return octets.hex(":") if size == 6 else ""


def _tagged(ethertype: int, data: bytes) -> tuple[int, int, bytes]:
    """(VLAN or -1, ethertype, data) behind the tags."""
    vlan = -1
    while ethertype in (ethernet.VLAN, ethernet.SERVICE_VLAN) and len(data) >= 4:
        vlan, ethertype = int.from_bytes(data[:2], "big") & 0xFFF, int.from_bytes(data[2:4], "big")
        data = data[4:]
    return vlan, ethertype, data


def _lenient_v4(data: bytes) -> Ipv4:
    """As ip.parse_ipv4, but a cut payload, a length of 0 (segmentation by hardware) and a wrong checksum pass."""
    if len(data) < 20:
        raise WireError("truncated IPv4 header", 0)
    size, total = (data[0] & 0x0F) * 4, int.from_bytes(data[2:4], "big")
    if data[0] >> 4 != 4 or size < 20 or len(data) < size:
        raise WireError("IPv4 header", 0)
    place = int.from_bytes(data[6:8], "big")
    end = min(total, len(data)) if total >= size else len(data)
    return Ipv4(
        data[12:16], data[16:20], data[9], data[size:end], identification=int.from_bytes(data[4:6], "big"),
        flags=place >> 13, fragment=place & 0x1FFF,
    )  # fmt: skip


def _padded_v6(data: bytes) -> bytes:
    """A cut packet with zeros where its end was."""
    if len(data) < 40:
        raise WireError("truncated IPv6 header", 0)
    return data + bytes(max(0, 40 + int.from_bytes(data[4:6], "big") - len(data)))


def _transport(seen: Peeled, protocol: int, data: bytes, *, six: bool) -> Peeled | None:
    if protocol == UDP:
        if len(data) < 8:
            return None
        sport, dport, size = struct.unpack_from("!HHH", data)
        body = data[8:size] if 8 <= size <= len(data) else data[8:]
        return replace(seen, sport=sport, dport=dport, body=body, cut=seen.cut or size > len(data))
    if protocol == TCP:
        segment = tcp.parse(data)
        return replace(seen, sport=segment.source, dport=segment.destination, body=segment)
    if protocol == icmp.PROTOCOL4 and not six:
        return replace(seen, body=icmp.parse4(data))
    if protocol == icmp.PROTOCOL6 and six:
        return replace(seen, body=icmp.parse6(data))
    return None
