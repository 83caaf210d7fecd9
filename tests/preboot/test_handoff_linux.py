"""Linux kernels and initrds: what is whole is taken, what is not is told; and what kexec_load is given."""

from __future__ import annotations

import gzip
import lzma
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.assets.kernels import Image, Refusal
from bootwire.lab.initrd import extra
from bootwire.preboot.handoff import linux

CODE = bytes(range(251)) * 40
MEMORY = [(0, 0x9FC00, 1), (0xF0000, 0x10000, 2), (0x100000, 0x3FF00000, 1)]


def bzimage(code: bytes = CODE, version: int = 0x020F, wide: int = 1) -> bytes:
    """A kernel in the x86 boot protocol's form, as far as loaders read it."""
    setup = bytearray(2 * 512)
    setup[0x1F1] = 1  # one setup sector after the first
    struct.pack_into("<I", setup, 0x1F4, len(code) // 16)
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x201] = 0x6A
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, version)
    struct.pack_into("<I", setup, 0x22C, 0x7FFFFFFF)  # initrd_addr_max
    struct.pack_into("<IBB", setup, 0x230, 0x200000, 1, 21)  # kernel_alignment, relocatable
    struct.pack_into("<HI", setup, 0x236, wide, 2047)  # xloadflags, cmdline_size
    struct.pack_into("<QI", setup, 0x258, 0x1000000, 0x100000)  # pref_address, init_size
    return bytes(setup) + code


def kernel() -> linux.Kernel:
    found = linux.read_kernel(bzimage())
    assert isinstance(found, linux.Kernel)
    return found


def test_a_gzip_compressed_kernel_is_unpacked() -> None:
    found = linux.read_kernel(gzip.compress(bzimage()))
    assert isinstance(found, linux.Kernel)
    assert found.data == bzimage()


@pytest.mark.parametrize(
    ("data", "because"),
    [
        (bzimage()[:6000], "cut off at 6000 of"),
        (gzip.compress(bzimage())[:300], "cut off or damaged"),
        (b"", "an empty file"),
        (b"<!doctype html>", "web page"),
        (extra({"a": "b"}), "initrd"),
    ],
)
def test_what_is_no_whole_kernel_is_refused(data: bytes, because: str) -> None:
    found = linux.read_kernel(data)
    assert isinstance(found, Refusal)
    assert because in found.because


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gzip", "xz"])
def test_a_truncated_initrd_is_refused(pack) -> None:
    whole = pack(gzip.decompress(extra({"name": "text" * 5000})))
    assert isinstance(linux.read_initrd(whole), Image)
    assert isinstance(linux.read_initrd(whole[: len(whole) - 20]), Refusal)


def test_a_second_archive_behind_the_first_is_no_damage() -> None:
    assert isinstance(linux.read_initrd(linux.join([extra({"a": "1"}), extra({"b": "2"})])), Image)


@given(st.lists(st.binary(max_size=20)))
def test_joined_initrds_keep_order_and_begin_aligned(parts: list[bytes]) -> None:
    joined = linux.join(parts)
    at = 0
    for part in parts:
        at += -at % 4
        assert joined[at : at + len(part)] == part
        at += len(part)
    assert len(joined) == at


def test_command_lines_the_kernel_would_cut_are_refused() -> None:
    assert linux.check_command_line(kernel(), "x" * 2047) == ""
    assert "2047" in linux.check_command_line(kernel(), "x" * 2048)
    assert linux.check_command_line(kernel(), "two\nlines")


def test_kexec_segments_hold_kernel_parameters_and_initrd() -> None:
    placed = linux.place(kernel(), b"I" * 5000, "console=ttyS0", MEMORY, screen=b"S" * 64, rsdp=0xE0000)
    parts = dict(placed.segments)
    assert parts[0x1000000] == CODE
    at = placed.entry - 4096
    params = parts[at][:4096]
    assert params[:64] == b"S" * 64
    assert struct.unpack_from("<Q", params, 0x70)[0] == 0xE0000
    assert params[0x1F1:0x260] != bytes(0x6F)
    assert params[0x1E8] == len(MEMORY)
    assert struct.unpack_from("<QQI", params, 0x2D0 + 40) == MEMORY[2]
    archive, size = struct.unpack_from("<II", params, 0x218)
    assert parts[archive][:size] == b"I" * 5000
    line = struct.unpack_from("<I", params, 0x228)[0]
    assert parts[at][line - at :] == b"console=ttyS0\0"


def test_kexec_segments_lie_apart_in_free_memory() -> None:
    placed = linux.place(kernel(), b"I" * 100_000, "", MEMORY)
    end = 0
    for at, data in placed.segments:
        assert at % 4096 == 0
        assert end <= at
        assert any(base <= at and at + len(data) <= base + size for base, size, kind in MEMORY if kind == 1)
        end = at + len(data)


def test_without_its_favourite_place_the_kernel_goes_to_another() -> None:
    memory = [(0x100000, 0x700000, 1), (0x4000000, 0x4000000, 1)]
    placed = linux.place(kernel(), b"", "", memory)
    assert placed.segments[0][0] == 0x4000000


@pytest.mark.parametrize(
    ("data", "memory"), [(bzimage(wide=0), MEMORY), (bzimage(version=0x020B), MEMORY), (bzimage(), [(0, 0x200000, 1)])]
)
def test_what_cannot_be_entered_is_refused(data: bytes, memory: list[tuple[int, int, int]]) -> None:
    found = linux.read_kernel(data)
    assert isinstance(found, linux.Kernel)
    with pytest.raises(linux.NotStartable):
        linux.place(found, b"", "", memory)


@pytest.mark.interop
def test_the_entry_program_is_what_its_source_assembles_to(tmp_path: Path) -> None:
    (tmp_path / "entry.s").write_text(linux.SOURCE)
    for command in (
        "as --64 entry.s -o entry.o",
        "ld -Ttext 0 -e 0 -o entry entry.o",
        "objcopy -O binary -j .text entry entry.bin",
    ):
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    assert (tmp_path / "entry.bin").read_bytes() == linux.CODE
