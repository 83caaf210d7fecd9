"""Ethernet II frames with 802.1Q tags, without preamble and FCS (IEEE 802.3 clause 3, 802.1Q clause 9).

An 802.3 frame with a length instead of a type is kept as it is: `ethertype` is then below 0x0600.
"""

from __future__ import annotations

from dataclasses import dataclass

from bootwire.wire.reader import Reader, WireError

BROADCAST = b"\xff" * 6

# IEEE Registration Authority, EtherType public listing
IPV4 = 0x0800
ARP = 0x0806
IPV6 = 0x86DD
VLAN = 0x8100  # 802.1Q customer tag
SERVICE_VLAN = 0x88A8  # 802.1ad service tag


@dataclass(frozen=True, slots=True)
class Tag:
    """One VLAN tag. tpid: VLAN or SERVICE_VLAN; tci: priority (3 bits), drop eligible (1), VLAN number (12)."""

    tpid: int
    tci: int

    @property
    def vlan(self) -> int:
        """0..4095; 0 is a priority tag without a VLAN."""
        return self.tci & 0x0FFF


@dataclass(frozen=True, slots=True)
class Frame:
    """destination, source: 6 octets; ethertype: 0..65535, after the tags; tags: outermost first.

    payload keeps the padding of short frames: the layer above knows its own length.
    """

    destination: bytes
    source: bytes
    ethertype: int
    payload: bytes
    tags: tuple[Tag, ...] = ()


def parse(data: bytes) -> Frame:
    """Read one frame. Raises WireError."""
    r = Reader(data)
    destination, source = r.take(6, "destination"), r.take(6, "source")
    tags: list[Tag] = []
    while (ethertype := r.u16("ethertype")) in (VLAN, SERVICE_VLAN):
        tags.append(Tag(ethertype, r.u16("VLAN tag")))
    return Frame(destination, source, ethertype, r.rest(), tuple(tags))


def emit(frame: Frame) -> bytes:
    """The octets of one frame, not padded to the 60 that a real wire wants: drivers do that."""
    tags = b"".join(t.tpid.to_bytes(2, "big") + t.tci.to_bytes(2, "big") for t in frame.tags)
    return b"".join((frame.destination, frame.source, tags, frame.ethertype.to_bytes(2, "big"), frame.payload))


def mac_text(octets: bytes) -> str:
    """52:54:00:12:34:56"""
    return octets.hex(":")


def mac_octets(text: str) -> bytes:
    """Six octets from "52:54:00:12:34:56" or "52-54-00-12-34-56", any case. Raises WireError."""
    parts = text.replace("-", ":").split(":", 6)
    try:
        octets = bytes.fromhex("".join(part.zfill(2) if part.isalnum() else "?" for part in parts))
    except ValueError:
        octets = b""
    if len(parts) != 6 or len(octets) != 6:
        raise WireError("not a MAC address", 0)
    return octets
