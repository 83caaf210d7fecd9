"""The memory image of a FreeBSD kernel, read back octet by octet: what lies where, and what the records say of it."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import probe_kernel
from bootwire.preboot.handoff import elf, freebsd, modinfo, trampoline
from bootwire.preboot.handoff.freebsd import KERNBASE, Image, Module, NotLoadable
from bootwire.wire.reader import WireError

pytestmark = pytest.mark.interop  # a compiler makes the kernel and its modules

MAP = [(0, 0x9FC00, 1), (0x9FC00, 0x400, 2), (0x100000, 0x7EE0000, 1)]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return probe_kernel.kernel(tmp_path_factory.mktemp("kernel"))


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return probe_kernel.module(tmp_path_factory.mktemp("module"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return probe_kernel.module(tmp_path_factory.mktemp("shared"), shared=True)


def memory(image: Image, at: int, size: int) -> bytes:
    start, data = image.merged()
    return data[at - start : at - start + size]


def files(image: Image) -> list[dict[int, modinfo.Record]]:
    """The records of each file as the kernel finds them in memory."""
    groups: list[dict[int, modinfo.Record]] = []
    for record in modinfo.parse(memory(image, image.modulep, image.kernend - image.modulep)):
        if record.kind == modinfo.NAME:
            groups.append({})
        groups[-1][record.kind] = record
    return groups


def test_kernel_lies_at_its_link_address_less_kernbase(kernel: bytes) -> None:
    image = freebsd.build(kernel, memory_map=MAP)
    for segment in elf.parse(kernel).segments:
        assert (
            memory(image, segment.address - KERNBASE, segment.file_size)
            == (kernel[segment.offset : segment.offset + segment.file_size])
        )
        bss = segment.address - KERNBASE + segment.file_size
        assert not any(memory(image, bss, segment.size - segment.file_size))
    assert image.entry == elf.parse(kernel).entry
    assert image.segments[0][0] == 0x200000


def test_records_name_the_kernel_first_and_describe_it(kernel: bytes) -> None:
    image = freebsd.build(kernel, howto=0x1800, memory_map=MAP)
    [about] = files(image)
    assert about[modinfo.NAME].text == "/boot/kernel/kernel"
    assert about[modinfo.TYPE].text == "elf kernel"
    assert about[modinfo.ADDR].number == 0x200000
    assert about[modinfo.ELFHDR].data == kernel[:64]
    assert about[modinfo.HOWTO].data == struct.pack("<I", 0x1800)
    assert about[modinfo.KERNEND].number == image.kernend
    assert about[modinfo.MODULEP].number == image.modulep
    assert about[modinfo.SMAP].data == b"".join(struct.pack("<QQI", *entry) for entry in MAP)


def test_symbols_stand_behind_their_sizes(kernel: bytes) -> None:
    image = freebsd.build(kernel, memory_map=MAP)
    [about] = files(image)
    start, end = about[modinfo.SSYM].number, about[modinfo.ESYM].number
    table = next(part for part in elf.parse(kernel).sections if part.kind == elf.SYMTAB)
    assert memory(image, start, 8) == struct.pack("<Q", table.size)
    assert memory(image, start + 8, table.size) == kernel[table.offset : table.offset + table.size]
    strings = struct.unpack("<Q", memory(image, start + 8 + table.size, 8))[0]
    assert b"probe_main" in memory(image, start + 16 + table.size, strings)
    assert start < end <= about[modinfo.ADDR].number + about[modinfo.SIZE].number


def test_environment_is_double_nul_terminated_and_found_by_envp(kernel: bytes) -> None:
    image = freebsd.build(kernel, environment={"console": "comconsole", "a.b": "x=y"}, memory_map=MAP)
    expected = b"console=comconsole\0a.b=x=y\0\0"
    assert memory(image, files(image)[0][modinfo.ENVP].number, len(expected)) == expected


def test_memory_disk_is_page_aligned_and_whole(kernel: bytes) -> None:
    disk = bytes(range(256)) * 40
    image = freebsd.build(kernel, [Module("/boot/mfsroot", disk, "mfs_root")], memory_map=MAP)
    about = files(image)[1]
    at = about[modinfo.ADDR].number
    assert (about[modinfo.NAME].text, about[modinfo.TYPE].text) == ("/boot/mfsroot", "mfs_root")
    assert at % 4096 == 0
    assert about[modinfo.SIZE].number == len(disk)
    assert memory(image, at, len(disk)) == disk


def test_relocatable_module_is_laid_out_by_the_headers_it_is_handed_with(kernel: bytes, module: bytes) -> None:
    image = freebsd.build(kernel, [Module("/boot/kernel/m.ko", module)], memory_map=MAP)
    about = files(image)[1]
    assert about[modinfo.TYPE].text == "elf obj module"
    headers = about[modinfo.SHDR].data
    start, end = about[modinfo.ADDR].number, about[modinfo.ADDR].number + about[modinfo.SIZE].number
    placed = 0
    for number, part in enumerate(elf.parse(module).sections):
        at = struct.unpack_from("<Q", headers, number * 64 + 16)[0]
        if part.kind == elf.PROGBITS and part.flags & elf.ALLOC and part.size:
            assert memory(image, at, part.size) == module[part.offset : part.offset + part.size]
        if at:
            placed += 1
            assert at % (part.align or 1) == 0
            assert start <= at
            assert at + part.size <= end
    assert placed >= 6  # text, data, symbols, two tables of names, relocations


def test_shared_module_keeps_its_distances(kernel: bytes, shared: bytes) -> None:
    image = freebsd.build(kernel, [Module("/boot/kernel/m.ko", shared)], memory_map=MAP)
    about = files(image)[1]
    assert about[modinfo.TYPE].text == "elf module"
    for segment in elf.parse(shared).segments:
        if segment.kind == elf.LOAD:
            at = about[modinfo.ADDR].number + segment.address
            assert memory(image, at, segment.file_size) == (shared[segment.offset : segment.offset + segment.file_size])
    assert modinfo.DYNAMIC in about


def test_module_arguments_are_handed_over(kernel: bytes, module: bytes) -> None:
    image = freebsd.build(kernel, [Module("m.ko", module, arguments="debug=1")], memory_map=MAP)
    assert files(image)[1][modinfo.ARGS].text == "debug=1"


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (lambda kernel: b"\x7fELF\x01" + kernel[5:], "64-bit"),
        (lambda kernel: kernel[:18] + b"\xb7\0" + kernel[20:], "another machine"),
        (lambda kernel: kernel[: len(kernel) // 2], "truncated"),
        (lambda kernel: kernel[:16] + b"\x03\0" + kernel[18:], "module or a library"),
        (lambda kernel: kernel[:24] + struct.pack("<Q", 0x1000) + kernel[32:], "entry point"),
        (lambda kernel: b"#!ipxe\n" * 100, "no ELF"),
    ],
)
def test_what_is_no_kernel_is_refused(kernel: bytes, change, because: str) -> None:
    with pytest.raises(NotLoadable, match=because):
        freebsd.build(change(kernel))


def test_an_ordinary_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotLoadable, match=r"library|not linked"):
        freebsd.build(Path("/bin/true").read_bytes())


def test_a_stripped_module_is_refused(kernel: bytes, module: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.ko").write_bytes(module)
    subprocess.run(["strip", "--strip-all", "m.ko"], cwd=tmp_path, check=True)
    with pytest.raises(NotLoadable, match="symbol tables"):
        freebsd.build(kernel, [Module("m.ko", (tmp_path / "m.ko").read_bytes())])


def test_more_than_the_first_gigabyte_is_refused(kernel: bytes) -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 2 << 30

    with pytest.raises(NotLoadable, match="1 GiB"):
        freebsd.build(kernel, [Module("disk", Huge(b"x"), "mfs_root")])


def test_flags_come_from_letters_and_variables() -> None:
    assert freebsd.howto("-sv", {}) == 0x802
    assert freebsd.howto("", {"boot_serial": "YES", "boot_verbose": "NO"}) == 0x1000


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_kernels_are_refused_or_laid_out_but_never_fail_otherwise(kernel: bytes, data: st.DataObject) -> None:
    damaged = bytearray(kernel)
    for _ in range(data.draw(st.integers(1, 4))):
        near = data.draw(st.sampled_from([range(16, 240), range(len(kernel) - 512, len(kernel))]))
        damaged[data.draw(st.sampled_from(near))] = data.draw(st.integers(0, 255))
    try:
        image = freebsd.build(bytes(damaged), memory_map=MAP)
    except NotLoadable:
        return
    assert image.segments[0][0] >= freebsd.LOWEST
    assert image.kernend <= freebsd.HIGHEST


@given(st.lists(st.tuples(st.integers(1, 0xFFFF), st.binary(max_size=40))))
def test_records_survive_the_way_through_memory(parts: list[tuple[int, bytes]]) -> None:
    records = [modinfo.Record(kind, data) for kind, data in parts]
    assert modinfo.parse(modinfo.emit(records) + b"rest") == records


@given(st.binary(max_size=200))
def test_any_octets_are_records_or_an_error(data: bytes) -> None:
    try:
        modinfo.parse(data)
    except WireError as error:
        assert 0 <= error.at <= len(data) + 8


def test_the_machine_program_is_what_its_source_assembles_to(tmp_path: Path) -> None:
    (tmp_path / "program.s").write_text(trampoline.SOURCE)
    for command in (
        "as --64 program.s -o program.o",
        f"ld -Ttext {trampoline.PROGRAM:#x} -e {trampoline.PROGRAM:#x} -o program program.o",
        "objcopy -O binary -j .text program program.bin",
    ):
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    assert (tmp_path / "program.bin").read_bytes() == trampoline.CODE
    symbols = subprocess.run(["nm", "program"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    at = {line.split()[2]: int(line.split()[0], 16) for line in symbols.splitlines()}
    assert (at["kexec"], at["pvh"]) == (trampoline.KEXEC_ENTRY, trampoline.PVH_ENTRY)


def test_kexec_gets_page_aligned_segments_that_do_not_overlap(kernel: bytes, module: bytes) -> None:
    image = freebsd.build(kernel, [Module("m.ko", module)], memory_map=MAP)
    segments = trampoline.kexec_segments(image)
    assert len(segments) <= 16  # KEXEC_SEGMENT_MAX
    end = 0
    for at, data in segments:
        assert at % 4096 == 0
        assert at >= end
        end = at + len(data)
    with pytest.raises(NotLoadable, match="memory map"):
        trampoline.kexec_segments(freebsd.build(kernel))
