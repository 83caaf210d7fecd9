"""What passes between a host and its link: Ethernet octets, and what the link does in the host's stead."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from bootwire.wire import checksum, ethernet, ip, tcp


@dataclass(frozen=True, slots=True)
class Offload:
    """What the link does for what we send.

    checksum      it fills in TCP and UDP checksums
    segmentation  it cuts a TCP segment of up to 64 KiB into pieces of `Frame.segment` octets (TSO)
    """

    checksum: bool = False
    segmentation: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """One Ethernet frame without FCS.

    segment      0, or this is several TCP segments or UDP datagrams in one: so many octets of payload belong into each
    checksum_at  0, or the offset of a TCP or UDP header whose checksum field holds the pseudo-header's sum only; the
                 link fills it in
    trusted      a link that checked the checksums says that they hold (on receive)
    """

    octets: bytes
    segment: int = 0
    checksum_at: int = 0
    trusted: bool = False


def complete(frame: Frame) -> Iterator[Frame]:
    """The frames that a link with offload would put on a wire for `frame`: cut, and with checksums."""
    if not frame.checksum_at and not frame.segment:
        yield frame
        return
    octets, at = frame.octets, frame.checksum_at
    network = network_at(octets)
    if udp := _udp_at(frame, network):
        for one in datagrams(frame):
            yield Frame(_filled(one.octets, network, udp))
        return
    if not at:  # cut only: the checksum is of the whole, so the transport header has to be found
        at = network + ((octets[network] & 15) * 4 if octets[network] >> 4 == 4 else 40)
    if not frame.segment:
        yield Frame(_filled(octets, network, at))
        return
    body = at + (octets[at + 12] >> 4) * 4
    seq = int.from_bytes(octets[at + 4 : at + 8], "big")
    flags = octets[at + 13]
    for start in range(body, len(octets), frame.segment):
        stop = min(start + frame.segment, len(octets))
        piece = bytearray(octets[:body]) + octets[start:stop]
        struct.pack_into("!I", piece, at + 4, (seq + start - body) & 0xFFFFFFFF)
        if stop < len(octets):
            piece[at + 13] = flags & ~(tcp.FIN | tcp.PSH)
        size = len(piece) - network
        if piece[network] >> 4 == 4:
            number = int.from_bytes(piece[network + 4 : network + 6], "big") + (start - body) // frame.segment
            struct.pack_into("!HH", piece, network + 2, size, number & 0xFFFF)
            piece[network + 10 : network + 12] = b"\0\0"
            header = bytes(piece[network : network + (piece[network] & 15) * 4])
            struct.pack_into("!H", piece, network + 10, checksum.compute(header))
        else:
            struct.pack_into("!H", piece, network + 4, size - 40)
        yield Frame(_filled(bytes(piece), network, at))


def datagrams(frame: Frame) -> Iterator[Frame]:
    """The frames that several UDP datagrams in one (UDP_SEGMENT, GRO) stand for; others as they are.

    Checksums are as trustworthy as they were: what merged the datagrams, or has yet to cut them, answers for them.
    """
    octets, at = frame.octets, network_at(frame.octets)
    udp = _udp_at(frame, at)
    if not udp:
        yield frame
        return
    version4 = octets[at] >> 4 == 4
    for start in range(udp + 8, len(octets), frame.segment):
        stop = min(start + frame.segment, len(octets))
        piece = bytearray(octets[: udp + 8]) + octets[start:stop]
        struct.pack_into("!H", piece, udp + 4, stop - start + 8)
        if version4:
            struct.pack_into("!H", piece, at + 2, len(piece) - at)
            piece[at + 10 : at + 12] = b"\0\0"
            struct.pack_into("!H", piece, at + 10, checksum.compute(bytes(piece[at:udp])))
        else:
            struct.pack_into("!H", piece, at + 4, len(piece) - udp)
        yield Frame(bytes(piece), 0, 0, frame.trusted or frame.checksum_at != 0)


def _udp_at(frame: Frame, at: int) -> int:
    """Where the UDP header of merged datagrams begins, 0 if it is something else. at: of the IP header."""
    octets = frame.octets
    if not frame.segment or len(octets) < at + 28:
        return 0
    version4 = octets[at] >> 4 == 4
    udp = at + ((octets[at] & 15) * 4 if version4 else 40)
    return udp if octets[at + (9 if version4 else 6)] == ip.UDP and len(octets) >= udp + 8 else 0


def network_at(octets: bytes) -> int:
    """Where the IP header begins: behind any 802.1Q tags."""
    at = 14
    while octets[at - 2 : at] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    return at


def _filled(octets: bytes, network: int, at: int) -> bytes:
    """With the checksum of the transport header at `at` filled in."""
    if octets[network] >> 4 == 4:
        protocol, addresses = octets[network + 9], octets[network + 12 : network + 20]
    else:
        protocol, addresses = octets[network + 6], octets[network + 8 : network + 40]
    where = at + (tcp.CHECKSUM_AT if protocol == tcp.PROTOCOL else 6)
    half = len(addresses) // 2
    start = checksum.pseudo(addresses[:half], addresses[half:], protocol, len(octets) - at)
    value = checksum.compute(octets[at:where] + b"\0\0" + octets[where + 2 :], start)
    if protocol == ip.UDP:
        value = value or 0xFFFF
    return octets[:where] + value.to_bytes(2, "big") + octets[where + 2 :]


def plain(destination: bytes, source: bytes, ethertype: int, payload: bytes, tag: bytes) -> bytes:
    """The octets of a frame. tag: b"" or the four octets of an 802.1Q tag."""
    return b"".join((destination, source, tag, ethertype.to_bytes(2, "big"), payload))


def tag_of(vlan: int | None) -> bytes:
    """The 802.1Q tag of a VLAN, 0..4095; b"" for None."""
    return b"" if vlan is None else ethernet.VLAN.to_bytes(2, "big") + vlan.to_bytes(2, "big")
