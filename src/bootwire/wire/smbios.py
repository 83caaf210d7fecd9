"""SMBIOS structures (DMTF DSP0134): their fixed part and their strings, read leniently and bounded by their octets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bootwire.wire.reader import WireError

# DSP0134 section 7
BIOS: Final = 0
SYSTEM: Final = 1
BASEBOARD: Final = 2
CHASSIS: Final = 3
PROCESSOR: Final = 4
MEMORY_DEVICE: Final = 17


@dataclass(frozen=True, slots=True)
class Structure:
    """One structure. body: the fixed part with its 4 octets of header; strings: as they stand, number 1 first."""

    type: int
    body: bytes
    strings: tuple[bytes, ...] = ()

    def string(self, at: int) -> bytes:
        """The string whose number stands at this offset; b"" for none, without the blanks that vendors pad with."""
        number = self.number(at, 1)
        return self.strings[number - 1].strip() if 0 < number <= len(self.strings) else b""

    def number(self, at: int, size: int) -> int:
        """A little-endian number, 0 where the fixed part of this table's version does not reach so far."""
        return int.from_bytes(self.body[at : at + size], "little") if at + size <= len(self.body) else 0


def parse(octets: bytes) -> Structure:
    """Read one structure; strings that were cut are left out. Raises WireError."""
    if len(octets) < 4 or not 4 <= octets[1] <= len(octets):
        raise WireError("truncated SMBIOS structure", len(octets))
    strings: list[bytes] = []
    at = octets[1]
    while at < len(octets) and octets[at] and (end := octets.find(b"\0", at)) >= 0:
        strings.append(octets[at:end])
        at = end + 1
    return Structure(octets[0], octets[: octets[1]], tuple(strings))


def uuid(system: Structure) -> str:
    """The machine's UUID as text, lower case, "" if the table has none (zeros or ones, section 7.2.1).

    The first three fields are little-endian since SMBIOS 2.6, and in the PXE option made of it.
    """
    raw = system.body[8:24]
    if len(raw) < 16 or raw in (bytes(16), b"\xff" * 16):
        return ""
    text = (raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def memory_octets(device: Structure) -> int:
    """What is in one memory socket (section 7.18.1): 0 where it is empty or nobody knows."""
    size = device.number(0x0C, 2)
    if size in (0, 0xFFFF):
        return 0
    if size == 0x7FFF:
        return (device.number(0x1C, 4) & 0x7FFF_FFFF) << 20
    return (size & 0x7FFF) << 10 if size & 0x8000 else size << 20
