"""The Internet checksum: the ones' complement of the ones' complement sum of 16-bit words (RFC 1071).

Sums are kept modulo 65535, where addition is ones' complement addition: one big-integer remainder costs a tenth of any
loop over words.
"""

from __future__ import annotations


def add(data: bytes, start: int = 0) -> int:
    """`start` plus the words of `data`, 0..65534. An odd last octet counts as the high half of a word."""
    words = int.from_bytes(data, "big")
    return (start + (words << 8 if len(data) & 1 else words)) % 0xFFFF


def pseudo(source: bytes, destination: bytes, protocol: int, length: int) -> int:
    """The sum of the pseudo-header of IPv4 (RFC 9293 section 3.1) or IPv6 (RFC 8200 section 8.1); packed addresses.

    length: octets of the transport header and its payload.
    """
    return (int.from_bytes(source, "big") + int.from_bytes(destination, "big") + protocol + length) % 0xFFFF


def finish(total: int) -> int:
    """What to put into the checksum field when everything else sums to `total`, 0..65534."""
    return -total % 0xFFFF


def compute(data: bytes, start: int = 0) -> int:
    """The checksum of `data`, whose checksum field is zero. UDP sends 65535 where this gives 0 (RFC 768)."""
    return -add(data, start) % 0xFFFF


def holds(data: bytes, start: int = 0) -> bool:
    """Whether `data`, checksum field included, sums to zero on top of `start`."""
    return add(data, start) == 0
