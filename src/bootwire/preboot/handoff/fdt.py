"""A flattened device tree with another /chosen: how arm64 kernels get command line and initrd.

Format: Devicetree Specification 0.4 chapter 5; the properties of /chosen: Documentation/arch/arm64/booting.rst and
dt-schema's chosen.yaml. Total and bounded: one pass, no recursion.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from bootwire.wire.reader import WireError

MAGIC = 0xD00DFEED
_BEGIN, _END, _PROPERTY, _NOP, _LAST = 1, 2, 3, 4, 9  # tokens of the structure block
_HEADER = struct.Struct(">10I")
MAX_DEPTH = 64  # nodes within nodes; real trees have about ten


def with_chosen(tree: bytes, properties: Mapping[str, bytes | None]) -> bytes:
    """The tree with these properties of /chosen replaced or added; None removes one. Raises WireError."""
    if len(tree) < _HEADER.size:
        raise WireError("truncated device tree", len(tree))
    magic, total, at, strings_at, reserved_at, version, _, cpu, strings_size, size = _HEADER.unpack_from(tree)
    if magic != MAGIC:
        raise WireError("no device tree magic", 0)
    if version < 17 or total > len(tree) or max(at + size, strings_at + strings_size, reserved_at + 16) > total:
        raise WireError("truncated device tree, or of an old version", 4)
    strings = bytearray(tree[strings_at : strings_at + strings_size])
    ours = b"".join(_property(strings, name, value) for name, value in properties.items() if value is not None)
    out = bytearray()
    names: list[bytes] = []
    done = False
    end = at + size
    while True:
        if at + 4 > end:
            raise WireError("no end of the structure block", at)
        start, token = at, _word(tree, at)
        at += 4
        if token == _BEGIN:
            stop = tree.find(b"\0", at, end)
            if stop < 0 or len(names) >= MAX_DEPTH:
                raise WireError("node without end of its name, or too deep", at)
            names.append(tree[at:stop])
            at = stop + 1 + -(stop + 1) % 4
            out += tree[start:at]
            if names == [b"", b"chosen"]:
                out += ours
                done = True
        elif token == _END:
            if not names:
                raise WireError("an end without its node", start)
            if len(names) == 1 and not done:
                out += struct.pack(">I", _BEGIN) + b"chosen\0\0" + ours + struct.pack(">I", _END)
            names.pop()
            out += tree[start:at]
        elif token == _PROPERTY:
            if at + 8 > end:
                raise WireError("truncated property", at)
            length, name_at = _word(tree, at), _word(tree, at + 4)
            name = bytes(strings[name_at : strings.find(b"\0", name_at)])
            at += 8 + length + -length % 4
            if at > end:
                raise WireError("truncated property", start)
            if names != [b"", b"chosen"] or name.decode("latin-1") not in properties:
                out += tree[start:at]
        elif token == _LAST:
            out += tree[start:at]
            break
        elif token != _NOP:
            raise WireError(f"token {token}", start)
    reserved_end = reserved_at
    while tree[reserved_end : reserved_end + 16].strip(b"\0"):
        reserved_end += 16
    reserved = tree[reserved_at:reserved_end] + bytes(16)
    first = _HEADER.size
    places = (first + len(reserved), first + len(reserved) + len(out))
    total = places[1] + len(strings)
    header = _HEADER.pack(MAGIC, total, *places, first, 17, 16, cpu, len(strings), len(out))
    return header + reserved + bytes(out) + bytes(strings)


def _property(strings: bytearray, name: str, value: bytes) -> bytes:
    at = len(strings)
    strings += name.encode() + b"\0"
    return struct.pack(">III", _PROPERTY, len(value), at) + value + bytes(-len(value) % 4)


def _word(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")
