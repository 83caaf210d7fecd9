"""Records of machines: what a report says, what changed, and what rules find in them."""

from __future__ import annotations

import struct

from bootwire.policy.inventory import (
    CHANGES,
    NAMES,
    Hardware,
    Machine,
    fold,
    hardware,
    lookup,
    notes,
    size_text,
    summary,
)
from bootwire.wire import report
from bootwire.wire.report import Cpuid, Item, Report

GIB = 2**30
LINUX_DATA = bytes.fromhex("af3dc60f838472478e793d69d8477de4")  # 0FC63DAF-8483-4772-8E79-3D69D8477DE4, as on disk


def smbios(kind: int, body: bytes, *strings: bytes) -> report.Smbios:
    head = bytes((kind, len(body) + 4)) + b"\x01\x00"
    return report.Smbios(head + body + b"".join(one + b"\0" for one in strings) + b"\0")


def system(serial: bytes = b"S-77") -> report.Smbios:
    uuid = bytes.fromhex("33221100554477668899aabbccddeeff")
    return smbios(1, b"\1\2\0\3" + uuid + b"\0\0\0", b"Maker", b"Model 7  ", serial)


def dimm(mebibytes: int) -> report.Smbios:
    return smbios(17, bytes(8) + struct.pack("<H", mebibytes) + bytes(8))


def brand(text: bytes) -> list[Item]:
    padded = text.ljust(48, b"\0")
    return [Cpuid(0x8000_0002 + i, 0, *struct.unpack_from("<4I", padded, 16 * i)) for i in range(3)]


CPU: list[Item] = [
    Cpuid(0, 0, 13, *struct.unpack("<I", b"Genu"), *struct.unpack("<I", b"ntel"), *struct.unpack("<I", b"ineI")),
    Cpuid(1, 0, 0x000306C1, 4 << 16, 1 << 5, 1 << 28 | 1),
    Cpuid(0x8000_0001, 0, 0, 0, 0, 1 << 29 | 1 << 20),
    *brand(b"Intel Core Processor (Haswell)"),
]


def one_report(*more: Item) -> Hardware:
    items = (report.Mac(bytes.fromhex("525400770001")), *CPU, system(), dimm(8192), dimm(8192), *more)
    found = hardware([Report(7, report.BIOS, 0, items)])
    assert found is not None
    return found


def test_a_processor_is_what_cpuid_says():
    cpu = one_report().cpu
    assert (cpu.vendor, cpu.family, cpu.model, cpu.stepping) == ("GenuineIntel", 6, 60, 1)
    assert (cpu.brand, cpu.threads, cpu.bits) == ("Intel Core Processor (Haswell)", 4, 64)
    assert cpu.features == ("fpu", "ht", "vmx", "nx", "lm")


def test_a_machine_is_who_its_smbios_says():
    found = one_report()
    assert (found.manufacturer, found.product, found.serial) == ("Maker", "Model 7", "S-77")
    assert found.uuid == "00112233-4455-6677-8899-aabbccddeeff"


def test_memory_is_what_is_installed_and_not_what_the_map_leaves_of_it():
    found = one_report(report.Memory(((0, 0x9FC00, 1), (0x100000, 15 * GIB, 1), (0xFEFF_C000, 0x4000, 2))))
    assert (found.memory, found.memory_usable) == (16 * GIB, 0x9FC00 + 15 * GIB)


def test_memory_is_what_the_map_calls_usable_where_smbios_is_silent():
    parts = [Report(7, report.BIOS, 0, (report.Mac(bytes(6)), report.Memory(((0, 640, 1), (640, 64, 2)))))]
    found = hardware(parts)
    assert found is not None
    assert found.memory == 640


def test_a_disk_has_its_table_and_its_partitions():
    gpt = report.Partition(0x80, 1, 0, 2048, 4096, LINUX_DATA, bytes(16), "root".encode("utf-16-le"))
    old = report.Partition(0x81, 5, 0x80, 63, 100, b"\x83")
    first, second = one_report(
        report.Disk(0x80, 2, 512, 131072, 0, 0, 0, b"VIRTIO"),
        report.Label(0x80, 2, LINUX_DATA),
        gpt,
        report.Disk(0x81, 0, 0, 1000, 10, 2, 50, b""),
        report.Label(0x81, 1, b"\x78\x56\x34\x12"),
        old,
    ).disks
    assert (first.size, first.table, first.name) == (64 << 20, "gpt", "VIRTIO")
    assert [(p.index, p.start, p.size, p.name) for p in first.partitions] == [(1, 1 << 20, 2 << 20, "root")]
    assert first.partitions[0].kind == "0fc63daf-8483-4772-8e79-3d69d8477de4"
    assert (second.table, second.identity, second.size) == ("mbr", "0x12345678", 512_000)
    assert [(p.index, p.kind, p.active) for p in second.partitions] == [(5, "0x83", True)]


def test_parts_say_together_what_one_would():
    items = (report.Mac(bytes.fromhex("525400770001")), *CPU, system(), dimm(8192), dimm(8192))
    halves = [Report(7, report.BIOS, 0, items[:3], 0, 2), Report(7, report.BIOS, 0, items[3:], 1, 2)]
    assert hardware(halves) == one_report()


def test_a_report_without_a_mac_is_of_nobody():
    assert hardware([Report(1, report.BIOS, 0, (report.Program(b"hello 1"),))]) is None


def test_garbage_in_items_says_nothing():
    odd = [report.Smbios(b"\1"), report.Smbios(b"\1\xff\0\0"), report.Disk(1, 0, 0, 0, 0, 0, 0, b"\xff\0\x1b[31m")]
    found = one_report(*odd)
    assert found.disks[0].name.isprintable()


def test_notes_are_one_printable_line_each():
    parts = [Report(1, report.BIOS, 0, (report.Note(b"no answer\x1b[2J\n"),))]
    assert notes(parts) == ("no answer\\x1b[2J\\x0a",)


def test_the_first_report_of_a_machine_is_no_change():
    record, changed = fold(None, one_report(), 100.0)
    assert changed == ()
    assert (record.first_seen, record.last_seen, record.reports) == (100.0, 100.0, 1)


def test_what_changed_is_told_and_kept():
    before, _ = fold(None, one_report(report.Disk(0x80, 0, 512, 2048, 0, 0, 0, b"ATA")), 100.0)
    after, changed = fold(before, one_report(dimm(1024), report.Disk(0x81, 0, 512, 4096, 0, 0, 0, b"")), 200.0)
    assert changed == ("memory: 17 GiB, was 16 GiB", "disk 0x80: gone", "disk 0x81: new, 2 MiB")
    assert after.changes == tuple((200.0, text) for text in changed)
    assert (after.first_seen, after.last_seen, after.reports) == (100.0, 200.0, 2)


def test_the_same_report_again_changes_nothing():
    record, _ = fold(None, one_report(), 100.0)
    again, changed = fold(record, one_report(report.Address(bytes(4), bytes(4))), 200.0)
    assert changed == ()
    assert again.changes == ()


def test_a_record_keeps_a_bounded_number_of_changes():
    record: Machine | None = None
    for when in range(100):
        record, _ = fold(record, one_report(dimm(1024 * (when % 2 + 1))), when)
    assert record is not None
    assert len(record.changes) == CHANGES
    assert record.changes[-1][0] == 99


def test_every_name_of_a_rule_finds_a_value():
    found = one_report(report.Disk(0x80, 0, 512, 2048, 0, 0, 0, b"ATA"))
    assert {name: type(lookup(found, name)) for name in NAMES}.keys() == NAMES.keys()
    assert lookup(found, "memory") == 16 * GIB
    assert lookup(found, "disk") == (1 << 20,)
    assert lookup(found, "cpu.vendor") == "GenuineIntel"


def test_a_name_that_means_nothing_finds_nothing():
    assert lookup(one_report(), "cpu.colour") is None


def test_sizes_are_for_people():
    assert [size_text(n) for n in (512, 1536, 16 * GIB, 8 * GIB + GIB // 2)] == [
        "512 octets", "1.5 KiB", "16 GiB", "8.5 GiB",
    ]  # fmt: skip


def test_a_machine_in_one_line():
    found = one_report(report.Disk(0x80, 0, 512, 2048, 0, 0, 0, b"ATA"))
    assert summary(found) == "Maker Model 7; Intel Core Processor (Haswell); 16 GiB memory; disks: 1 MiB"
