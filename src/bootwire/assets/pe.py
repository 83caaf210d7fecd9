"""The few fields of a PE image (Microsoft PE format, UEFI 2.10 section 2.1.1) that tell whom it is for. Total."""

from __future__ import annotations

from dataclasses import dataclass

MACHINES = {  # COFF header, Machine; names as iPXE's `buildarch` and our catalog spell them
    0x014C: "i386",
    0x8664: "x86_64",
    0x01C0: "arm32",
    0x01C2: "arm32",
    0x01C4: "arm32",
    0xAA64: "arm64",
    0x5032: "riscv32",
    0x5064: "riscv64",
    0x6232: "loong32",
    0x6264: "loong64",
    0x0EBC: "ebc",
}
EFI_APPLICATION, EFI_BOOT_DRIVER, EFI_RUNTIME_DRIVER = 10, 11, 12  # optional header, Subsystem
MAX_SECTIONS = 96  # what Windows loaders take; a UKI has about a dozen


@dataclass(frozen=True, slots=True)
class Pe:
    """What the headers say. architecture: of MACHINES, or "machine 0x…"; sections: names without padding.

    certificates: where the attribute certificate table lies in the file (offset, octets), (0, 0) if there is none:
    there, and nowhere else, are signatures.
    """

    architecture: str
    subsystem: int
    sections: tuple[str, ...]
    certificates: tuple[int, int]

    @property
    def efi(self) -> bool:
        return EFI_APPLICATION <= self.subsystem <= EFI_RUNTIME_DRIVER + 1


def read(head: bytes) -> Pe | None:
    """The PE headers at the start of `head`, or None. 4 KiB are enough for every file seen."""
    if head[:2] != b"MZ" or len(head) < 0x40:
        return None
    at = number(head, 0x3C, 4)
    if head[at : at + 4] != b"PE\0\0" or at + 24 + 70 > len(head):
        return None
    machine, sections, optional = number(head, at + 4, 2), number(head, at + 6, 2), number(head, at + 20, 2)
    start = at + 24
    wide = number(head, start, 2) == 0x20B  # PE32+
    directories = start + (112 if wide else 96)
    certificates = (0, 0)
    if number(head, directories - 4, 4) > 4 and optional >= directories - start + 5 * 8:
        certificates = (number(head, directories + 32, 4), number(head, directories + 36, 4))
    names = []
    for index in range(min(sections, MAX_SECTIONS)):
        name = head[start + optional + 40 * index :][:8]
        names.append(name.rstrip(b"\0").decode("ascii", "replace"))
    return Pe(
        MACHINES.get(machine, f"machine 0x{machine:04x}"), number(head, start + 68, 2), tuple(names), certificates
    )


def number(data: bytes, at: int, size: int) -> int:
    """A little-endian field; what lies past the end of `data` counts as zero."""
    return int.from_bytes(data[at : at + size], "little")
