"""Sequence numbers without wrap: inside the engine they are plain integers that only grow.

The wire carries them modulo 2**32. Unwrapping once at the door leaves ordinary `<` and `-` everywhere else.
"""

from __future__ import annotations

MASK = 0xFFFFFFFF
_HALF = 0x80000000


def unwrap(wire: int, near: int) -> int:
    """The number nearest to `near` that the wire shows as `wire`, 0..2**32-1 (RFC 9293 section 3.4)."""
    return near + ((wire - near + _HALF) & MASK) - _HALF
