"""A kernel that stands for FreeBSD's, started by us and by GRUB: what both hand over, and where they differ.

GRUB's `kfreebsd` is an independent writer of the same records. Known differences, none of which the kernel minds:

- GRUB names files without their directory and with ".gz"; we name them as FreeBSD's loader does.
- GRUB says "elf64 kernel", FreeBSD's loader and we "elf kernel"; the kernel looks for both
  (preload_search_by_type in sys/amd64/amd64/machdep.c).
- We add the section headers of the kernel and MODULEP, as FreeBSD's loader does; GRUB does not.
- GRUB puts the environment before the records, and the kernel's symbols on a page of their own, counting that page.
- GRUB gives addresses to sections of a module that the kernel has no use for; it ends arguments with a space.
- The memory map is the firmware's: UEFI there, SeaBIOS here.
"""

from __future__ import annotations

import gzip
import shlex
import shutil
import struct
import subprocess

import pytest

import probe_kernel
from bootwire.lab.firmware import FIRMWARE
from bootwire.preboot.handoff import elf, modinfo
from bootwire.preboot.handoff.load import LoadedFreeBsd, load_freebsd
from probe_kernel import Handed

pytestmark = pytest.mark.e2e

PATIENCE = 120.0  # seconds; 1 for ours and 5 for UEFI with GRUB are usual on an idle machine
DISK = bytes(range(256)) * 100
CONF = b"""
m_load="YES"
packed_load="YES"
packed_flags="debug=1"
mfsroot_load="YES"
mfsroot_type="mfs_root"
mfsroot_name="/boot/mfsroot"
vfs.root.mountfrom="ufs:/dev/md0"
foo="two words"
"""
GRUB = """
terminal_output console
insmod gzio
kfreebsd (memdisk)/kernel -v -h
kfreebsd_module_elf (memdisk)/m.ko
kfreebsd_module_elf (memdisk)/packed.ko.gz debug=1
kfreebsd_module (memdisk)/mfsroot type=mfs_root
set kFreeBSD.vfs.root.mountfrom=ufs:/dev/md0
set kFreeBSD.foo="two words"
boot
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    place = tmp_path_factory.mktemp("build")
    module = probe_kernel.module(place)
    return {
        "kernel": probe_kernel.kernel(place),
        "m.ko": module,
        "packed.ko.gz": gzip.compress(module),
        "mfsroot": DISK,
    }


@pytest.fixture(scope="module")
def loaded(files: dict[str, bytes]) -> LoadedFreeBsd:
    tree = {"/boot/loader.conf": CONF, "/boot/mfsroot": files["mfsroot"]}
    tree |= {f"/boot/kernel/{name}": files[name] for name in ("kernel", "m.ko", "packed.ko.gz")}

    def read(name: str) -> bytes:
        if name not in tree:
            raise FileNotFoundError(name)
        return tree[name]

    return load_freebsd(read, flags="-vh")


@pytest.fixture(scope="module")
def ours(loaded: LoadedFreeBsd) -> Handed:
    with loaded.start_qemu(256, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as qemu:
        out, _ = qemu.process.communicate(timeout=PATIENCE)
    return probe_kernel.read(out.decode("latin-1"))


@pytest.fixture(scope="module")
def grubs(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Handed:
    place = tmp_path_factory.mktemp("grub")
    (place / "grub.cfg").write_text(GRUB)
    for name, data in files.items():
        (place / name).write_bytes(data)
    inside = " ".join(f"{name}={name}" for name in files)
    make = (
        "grub-mkstandalone -O x86_64-efi -o grub.efi --install-modules='bsd gzio memdisk tar normal configfile boot' "
        f"--modules='bsd gzio' --locales= --fonts= --themes= boot/grub/grub.cfg=grub.cfg {inside}"
    )
    subprocess.run(shlex.split(make), cwd=place, check=True)
    uefi = FIRMWARE["uefi"]
    shutil.copyfile(uefi.variables, place / "vars.fd")
    machine = [option.replace("{vars}", str(place / "vars.fd")) for option in uefi.options]
    command = [uefi.program, *machine, "-accel", "tcg", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot"]
    done = subprocess.run(
        [*command, "-serial", "stdio", "-kernel", str(place / "grub.efi")],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    return probe_kernel.read(done.stdout.decode("latin-1"))


def about(handed: Handed, number: int) -> dict[int, modinfo.Record]:
    """The records of one file: the kernel 0, then m.ko, packed.ko and mfsroot."""
    return {record.kind: record for record in handed.files()[number]}


def test_the_kernel_is_handed_exactly_the_records_that_were_prepared(loaded: LoadedFreeBsd, ours: Handed) -> None:
    image = loaded.image()
    assert (ours.modulep, ours.kernend) == (image.modulep, image.kernend)
    assert [record for record in ours.records if record.kind != modinfo.SMAP] == [
        record for record in image.records if record.kind != modinfo.SMAP
    ]


def test_the_memory_map_is_the_machines_own(ours: Handed) -> None:
    entries = list(struct.iter_unpack("<QQI", about(ours, 0)[modinfo.SMAP].data))
    free = sum(length for _, length, kind in entries if kind == 1)
    assert 250 << 20 < free <= 256 << 20
    assert any(base <= 0x200000 < base + length for base, length, kind in entries if kind == 1)


def test_environment_and_flags_arrive(ours: Handed) -> None:
    expected = {"vfs.root.mountfrom": "ufs:/dev/md0", "foo": "two words", "kernelname": "/boot/kernel/kernel"}
    assert expected.items() <= ours.environment.items()
    assert about(ours, 0)[modinfo.HOWTO].number == 0x1800


def test_a_plain_and_a_compressed_module_and_a_memory_disk_arrive(ours: Handed, files: dict[str, bytes]) -> None:
    assert [about(ours, number)[modinfo.NAME].text for number in range(1, 4)] == [
        "/boot/kernel/m.ko", "/boot/kernel/packed.ko", "/boot/mfsroot",
    ]  # fmt: skip
    for number in (1, 2):
        for index, section in enumerate(elf.parse(files["m.ko"]).sections):
            if (number, index) in ours.sections:
                octets = files["m.ko"][section.offset : section.offset + section.size]
                assert ours.sections[number, index] == probe_kernel.checksum(octets)
    assert sum(key[0] == 2 for key in ours.sections) >= 6
    assert ours.bodies[3] == (probe_kernel.checksum(DISK), DISK[:32])


@pytest.mark.parametrize("kind", [modinfo.ADDR, modinfo.ELFHDR, modinfo.HOWTO])
def test_grub_says_the_same_of_the_kernel(ours: Handed, grubs: Handed, kind: int) -> None:
    assert about(ours, 0)[kind] == about(grubs, 0)[kind]


def test_grub_hands_over_the_same_symbols(ours: Handed, grubs: Handed) -> None:
    sizes = [about(one, 0)[modinfo.ESYM].number - about(one, 0)[modinfo.SSYM].number for one in (ours, grubs)]
    assert sizes[0] == sizes[1]
    assert ours.symbols == grubs.symbols != b""


def test_grub_describes_the_same_files_in_the_same_order(ours: Handed, grubs: Handed) -> None:
    for number, one in enumerate(grubs.files()):
        mine, its = about(ours, number), {record.kind: record for record in one}
        assert its[modinfo.NAME].text.removesuffix(".gz") == mine[modinfo.NAME].text.rpartition("/")[2]
        assert its[modinfo.TYPE].text.replace("elf64 kernel", "elf kernel") == mine[modinfo.TYPE].text
        arguments = [kinds[modinfo.ARGS].text.rstrip() for kinds in (mine, its) if modinfo.ARGS in kinds]
        assert len(set(arguments)) <= 1
        assert its.keys() - mine.keys() == set()
        assert mine.keys() - its.keys() == ({modinfo.SHDR, modinfo.MODULEP} if number == 0 else set())
    assert len(grubs.files()) == len(ours.files()) == 4


def test_grub_loads_the_same_octets_for_every_section_and_the_disk(ours: Handed, grubs: Handed) -> None:
    assert ours.sections.keys() <= grubs.sections.keys()
    assert all(grubs.sections[key] == value for key, value in ours.sections.items())
    assert ours.bodies[3] == grubs.bodies[3]


def test_grub_gives_the_same_section_headers_but_for_addresses(ours: Handed, grubs: Handed) -> None:
    for number in (1, 2):
        heads = [list(struct.iter_unpack("<IIQQQQIIQQ", about(one, number)[0x8009].data)) for one in (ours, grubs)]
        assert [row[:3] + row[4:] for row in heads[0]] == [row[:3] + row[4:] for row in heads[1]]


def test_grub_passes_the_same_variables(ours: Handed, grubs: Handed) -> None:
    assert grubs.environment == {"vfs.root.mountfrom": "ufs:/dev/md0", "foo": "two words"}
    assert grubs.environment.items() <= ours.environment.items()
