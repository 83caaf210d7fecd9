"""Device trees for arm64: /chosen is replaced and everything else is kept."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.preboot.handoff import fdt, linux, machine
from bootwire.wire.reader import WireError

Node = tuple[bytes, dict[str, bytes], list["Node"]]
ROOT: Node = (
    b"",
    {"compatible": b"test\0", "odd": b"12345"},
    [
        (b"chosen", {"bootargs": b"old\0", "kaslr-seed": b"12345678", "stdout-path": b"/uart\0"}, []),
        (b"memory@40000000", {"reg": bytes(16)}, [(b"chosen", {"bootargs": b"not this one\0"}, [])]),
    ],
)


def build(node: Node) -> bytes:
    strings = bytearray()

    def emit(one: Node) -> bytes:
        name, properties, children = one
        out = struct.pack(">I", 1) + name + b"\0" + bytes(-(len(name) + 1) % 4)
        for key, value in properties.items():
            out += struct.pack(">III", 3, len(value), len(strings)) + value + bytes(-len(value) % 4)
            strings.extend(key.encode() + b"\0")
        return out + b"".join(emit(child) for child in children) + struct.pack(">I", 2)

    body = struct.pack(">I", 4) + emit(node) + struct.pack(">I", 9)
    reserved = struct.pack(">QQQQ", 0x1000, 0x2000, 0, 0)
    places = (40 + len(reserved), 40 + len(reserved) + len(body), 40)
    sizes = (len(strings), len(body))
    header = struct.pack(">10I", 0xD00DFEED, places[1] + len(strings), *places, 17, 16, 5, *sizes)
    return header + reserved + body + bytes(strings)


def read(tree: bytes) -> dict[str, bytes]:
    """Every property by its path."""
    _, total, at, strings, reserved, *_ = struct.unpack_from(">10I", tree)
    assert total == len(tree)
    assert struct.unpack_from(">QQ", tree, reserved) == (0x1000, 0x2000)
    path: list[str] = []
    found = {}
    while (token := struct.unpack_from(">I", tree, at)[0]) != 9:
        at += 4
        if token == 1:
            end = tree.index(b"\0", at)
            path.append(tree[at:end].decode())
            at = end + 1 + -(end + 1) % 4
        elif token == 2:
            path.pop()
        elif token == 3:
            length, name = struct.unpack_from(">II", tree, at)
            key = tree[strings + name : tree.index(b"\0", strings + name)].decode()
            found["/".join([*path, key])] = tree[at + 8 : at + 8 + length]
            at += 8 + length + -length % 4
    assert path == []
    return found


def test_chosen_is_replaced_and_the_rest_is_kept() -> None:
    new = read(
        fdt.with_chosen(build(ROOT), {"bootargs": b"new\0", "kaslr-seed": None, "linux,initrd-end": b"8 octets"})
    )
    expected = read(build(ROOT)) | {"/chosen/bootargs": b"new\0", "/chosen/linux,initrd-end": b"8 octets"}
    del expected["/chosen/kaslr-seed"]
    assert new == expected


def test_a_tree_without_chosen_gets_one() -> None:
    new = read(fdt.with_chosen(build((b"", {"a": b"1"}, [])), {"bootargs": b"x\0"}))
    assert new == {"/a": b"1", "/chosen/bootargs": b"x\0"}


def cut(data: bytes) -> Iterable[bytes]:
    return (data[:size] for size in range(len(data)))


def test_a_truncated_tree_is_refused() -> None:
    for part in cut(build(ROOT)):
        with pytest.raises(WireError):
            fdt.with_chosen(part, {})


@given(st.data())
def test_a_damaged_tree_is_refused_or_read_but_nothing_else(data: st.DataObject) -> None:
    tree = bytearray(build(ROOT))
    for _ in range(data.draw(st.integers(1, 3))):
        tree[data.draw(st.integers(0, len(tree) - 1))] = data.draw(st.integers(0, 255))
    try:
        fdt.with_chosen(bytes(tree), {"bootargs": b"x\0"})
    except WireError:
        return


def image(size: int = 0x100000) -> linux.Kernel:
    head = bytearray(b"MZ" + bytes(62))
    struct.pack_into("<QQ", head, 8, 0, 4 * size)
    head[0x38:0x3C] = b"ARMd"
    found = linux.read_kernel(bytes(head) + bytes(size))
    assert isinstance(found, linux.Kernel)
    return found


def test_an_arm64_kernel_lies_aligned_and_apart_from_initrd_and_tree() -> None:
    memory = [(0x40000000, 0x40000000, 1)]
    placed = linux.place_arm64(image(), b"I" * 5000, "console=ttyAMA0", memory, build(ROOT))
    parts = dict(placed.segments)
    tree_at, kernel_at = struct.unpack_from("<QQ", parts[placed.entry], len(linux.ARM64_CODE))
    assert kernel_at % (2 << 20) == 0
    assert tree_at % (2 << 20) == 0
    chosen = read(parts[tree_at])
    assert chosen["/chosen/bootargs"] == b"console=ttyAMA0\0"
    start, end = (int.from_bytes(chosen[f"/chosen/linux,initrd-{name}"], "big") for name in ("start", "end"))
    assert parts[start] == b"I" * 5000
    assert end - start == 5000
    assert all(at >= kernel_at + 0x400000 for at in parts if at != kernel_at)


def test_memory_is_read_from_iomem_without_what_is_reserved() -> None:
    text = (
        "09000000-09000fff : pl011@9000000\n40000000-7fffffff : System RAM\n  40210000-4123ffff : Kernel code\n"
        "  48000000-48ffffff : reserved\n  7ff00000-7fffffff : reserved\n80000000-8fffffff : PCI\n"
    )
    assert machine.read_iomem(text) == [(0x40000000, 0x8000000, 1), (0x49000000, 0x36F00000, 1)]
    assert machine.read_iomem("00000000-00000000 : System RAM\n") == []
