"""The vectors: messages octet by octet, in files that a person can read."""

from __future__ import annotations

from pathlib import Path

_VECTORS = Path(__file__).parent / "vectors"


def names(protocol: str) -> list[str]:
    """What there is in tests/vectors/PROTOCOL."""
    return sorted(path.stem for path in (_VECTORS / protocol).glob("*.hex"))


def octets(protocol: str, name: str) -> bytes:
    """The octets of tests/vectors/PROTOCOL/NAME.hex: hexadecimal, `00*64` for repeats, `#` to the end of a line."""
    out = bytearray()
    for line in (_VECTORS / protocol / f"{name}.hex").read_text().splitlines():
        for word in line.split("#", 1)[0].split():
            digits, _, times = word.partition("*")
            out += bytes.fromhex(digits) * int(times or 1)
    return bytes(out)
