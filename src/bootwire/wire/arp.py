"""ARP for IPv4 over Ethernet (RFC 826), with the probe and announcement forms of RFC 5227."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bootwire.wire.reader import WireError

ETHERTYPE = 0x0806  # IANA ether types
REQUEST, REPLY = 1, 2  # IANA ARP operation codes

_FORM = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET, _IPV4 = 1, 0x0800  # hardware type; protocol type


@dataclass(frozen=True, slots=True)
class Message:
    """operation: REQUEST, REPLY or an unknown number. Hardware addresses: 6 octets; protocol addresses: 4 octets."""

    operation: int
    sender_mac: bytes
    sender: bytes
    target_mac: bytes
    target: bytes


def parse(data: bytes, at: int = 0) -> Message:
    """The message at data[at:]; octets after it are Ethernet's padding. WireError for any other pair of protocols."""
    if len(data) - at < _FORM.size:
        raise WireError("truncated ARP message", at)
    hardware, protocol, mac_size, address_size, operation, *addresses = _FORM.unpack_from(data, at)
    if (hardware, protocol, mac_size, address_size) != (_ETHERNET, _IPV4, 6, 4):
        raise WireError(f"ARP for hardware type {hardware}, protocol 0x{protocol:04x}", at)
    return Message(operation, *addresses)


def emit(m: Message) -> bytes:
    """28 octets; Ethernet pads them."""
    return _FORM.pack(_ETHERNET, _IPV4, 6, 4, m.operation, m.sender_mac, m.sender, m.target_mac, m.target)
