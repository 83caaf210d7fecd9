"""Boot programs on UEFI: what they report is what the machine is, and they do what they are told."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bootwire import facts
from bootwire.lab.firmware import FIRMWARE
from bootwire.lab.linux import Linux
from bootwire.policy import inventory
from bootwire.programs.build import build_efi
from disks import ESP, LINUX_DATA, UNIQUE, gpt_disk, mbr_disk
from lab_bench import BOOTWIRE, MAC, Bench, Monitor, heard_of, told

pytestmark = pytest.mark.e2e

UUID = "00112233-4455-6677-8899-aabbccddeeff"
MARK = """
#include "boot.h"
const char PROGRAM[] = "mark";
status program(void) {
  print("MARK, %s\\n", pxe ? "by the network" : "from a disk");
  for (;;) services->stall(1000000);
}
"""


def mark(directory: Path, text: str = "MARK", *, ends: bool = False) -> bytes:
    """An EFI program that says whether it was started from a disk or by the network; and ends then, or never."""
    source = directory / "mark.c"
    source.write_text(
        MARK.replace("MARK", text).replace("for (;;) services->stall(1000000)", "return 0")
        if ends
        else MARK.replace("MARK", text)
    )
    return build_efi(source, "x86_64")


def drive(path: Path, number: int = 0) -> list[str]:
    """A disk that the firmware's boot order has after the network card, which the lab puts first."""
    return [
        "-drive", f"if=none,id=disk{number},format=raw,file={path}",
        "-device", f"virtio-blk-pci,drive=disk{number},bootindex={number + 1}",
    ]  # fmt: skip


def fat(directory: Path, text: str) -> bytes:
    """A FAT file system of 4,096 sectors with a loader that says `text`."""
    loader, files = directory / "BOOTX64.EFI", directory / "esp.img"
    loader.write_bytes(mark(directory, text))
    with files.open("wb") as image:
        image.truncate(4096 * 512)
    for argv in (["mformat", "-i", files, "::"], ["mmd", "-i", files, "::/EFI", "::/EFI/BOOT"]):
        subprocess.run(argv, check=True)
    subprocess.run(["mcopy", "-i", files, loader, "::/EFI/BOOT/BOOTX64.EFI"], check=True)
    return files.read_bytes()


def esp_disk(path: Path, directory: Path, *, other: bool = False) -> Path:
    """A GPT disk whose third partition is an EFI system partition; other: its first has a loader, too, and is none."""
    partitions, records = {3: (8192, 8192 + 4095, "esp")}, {8192: fat(directory, "MARK")}
    if other:
        partitions[1], records[2048] = (2048, 2048 + 4095, "data"), fat(directory, "WRONG")
    return gpt_disk(path, 16 << 20, partitions, records, {3: ESP})


@pytest.mark.parametrize("firmware", ["uefi", "uefi-arm64"])
def test_hello_reports_what_the_machine_is_and_goes_on_to_a_kernel(
    tmp_path: Path, linux: Callable[[str], Linux], state: Path, firmware: str
) -> None:
    gpt = gpt_disk(tmp_path / "gpt.img", 64 << 20, {1: (2048, 10239, "boot"), 3: (10240, 20479, "root disk")}, {})
    mbr = mbr_disk(tmp_path / "mbr.img", 32 << 20, [(0x80, 0x83, 2048, 8192)])
    with Bench(tmp_path, linux(FIRMWARE[firmware].architecture), state) as bench:
        bench.start_dhcp()
        bench.serve(firmware, more=["--program", "hello"])
        options = ["-smbios", f"type=1,manufacturer=Acme,product=Rocket,serial=S-77,uuid={UUID}"]
        options += ["-cpu", "Haswell"] if firmware == "uefi" else []
        booted = bench.finish(bench.power_on(firmware, options=[*options, "-m", "640", *drive(gpt), *drive(mbr, 1)]))
    assert booted.token in booted.command_line.split()
    (report,) = [fact for fact in booted.facts if isinstance(fact, facts.ReportReceived)]
    record = inventory.from_text(report.record)
    assert (record.machine, record.firmware, record.server, record.mode) == (MAC, "uefi", BOOTWIRE, 64)
    if firmware == "uefi":
        assert (record.cpu.brand, record.architecture) == ("Intel Core Processor (Haswell)", 7)
        assert (record.cpu.vendor, record.cpu.family, record.cpu.model) == ("GenuineIntel", 6, 60)
        assert {"lm", "avx2", "hypervisor"} <= set(record.cpu.features)
    else:
        assert (record.cpu.vendor, record.cpu.model, record.architecture) == ("arm 0x41", 0xD07, 11)  # Cortex-A57
    assert record.memory == 640 << 20
    assert (record.manufacturer, record.product, record.serial, record.uuid) == ("Acme", "Rocket", "S-77", UUID)
    first, second = sorted((disk for disk in record.disks if disk.table), key=lambda disk: disk.table)
    assert (first.size, first.table, first.identity) == (64 << 20, "gpt", str(UNIQUE))
    assert [(p.index, p.start, p.size, p.kind, p.name) for p in first.partitions] == [
        (1, 2048 * 512, 8192 * 512, str(LINUX_DATA), "boot"),
        (3, 10240 * 512, 10240 * 512, str(LINUX_DATA), "root disk"),
    ]
    assert (second.size, second.table, second.identity) == (32 << 20, "mbr", "0x12345678")
    assert [(p.index, p.kind, p.start // 512, p.size // 512, p.active) for p in second.partitions] == [
        (1, "0x83", 2048, 8192, True)
    ]
    assert "The server has it" in booted.machine.text


@pytest.mark.parametrize("answer", ["partition 3", "disk 0x80 partition 3", "system-id 239"])
def test_ask_starts_the_loader_of_an_efi_system_partition(bench: Bench, tmp_path: Path, answer: str) -> None:
    disk = esp_disk(tmp_path / "a.img", tmp_path, other=True)
    with bench:
        bench.start_dhcp()
        bench.serve("uefi", more=["--program", "ask", "--bootinfo-answer", answer])
        bench.said(bench.power_on("uefi", options=drive(disk)), "told: (?s:.*)MARK, from a disk")


def test_ask_chains_another_network_program(bench: Bench, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "other.efi").write_bytes(mark(tmp_path))
    with bench:
        bench.start_dhcp()
        answer = f"multiboot {BOOTWIRE}:other.efi"
        bench.serve("uefi", more=["--program", "ask", "--bootinfo-answer", answer, "--files", str(files)])
        bench.said(bench.power_on("uefi"), "told: (?s:.*)MARK, by the network")


def test_ask_says_that_what_it_started_has_ended_and_falls_back_after_its_last_try(
    bench: Bench, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "other.efi").write_bytes(mark(tmp_path, ends=True))
    (files / "next.efi").write_bytes(mark(tmp_path, "NEXT"))
    with bench:
        bench.start_dhcp()
        more = ["--program", "ask", "--bootinfo-answer", f"multiboot {BOOTWIRE}:other.efi", "--files", str(files)]
        more += ["--program-tries", "1", "--program-fallback", "next-program", "--program-next", "next.efi"]
        bench.serve("uefi", more=more)
        machine = bench.power_on("uefi")
        bench.said(machine, "(?s)MARK, by.*started and has ended, .*that was the last try.*NEXT, by the network")


@pytest.mark.parametrize("firmware", ["uefi", "uefi-arm64"])
def test_ask_boots_the_memory_file_system_it_is_told_of(
    tmp_path: Path, linux: Callable[[str], Linux], state: Path, firmware: str
) -> None:
    with Bench(tmp_path, linux(FIRMWARE[firmware].architecture), state) as bench:
        bench.start_dhcp()
        bench.serve(firmware, more=["--program", "ask", "--bootinfo"])
        booted = bench.finish(bench.power_on(firmware))
    assert booted.token in booted.command_line.split()


def test_ask_waits_until_an_order_comes_and_then_goes(bench: Bench, tmp_path: Path) -> None:
    disk = esp_disk(tmp_path / "a.img", tmp_path)
    with bench:
        bench.start_dhcp()
        bench.serve("uefi", more=["--program", "ask", "--bootinfo-answer", "wait"])
        machine = bench.power_on("uefi", options=drive(disk))
        bench.said(machine, "told to wait")
        order = [sys.executable, "-m", "bootwire", "order", MAC, "partition", "3", "--state-dir", str(bench.state)]
        assert b"it says so" in bench.ours.run(order)
        bench.said(machine, "MARK, from a disk", 60)


def test_ask_starts_the_machine_over(bench: Bench) -> None:
    with bench:
        bench.start_dhcp()
        bench.serve("uefi", more=["--program", "ask", "--bootinfo-answer", "reboot"])
        machine = bench.power_on("uefi", options=["-action", "reboot=reset"])
        bench.said(machine, "(?s)start over.*Bootwire ask 1.*start over")


def test_ask_sets_the_firmwares_next_boot_option(bench: Bench, tmp_path: Path) -> None:
    """OVMF's Boot0001 is the disk here, which its boot order has after the card."""
    disk = esp_disk(tmp_path / "a.img", tmp_path)
    with bench:
        bench.start_dhcp()
        bench.serve("uefi", more=["--program", "ask", "--bootinfo-answer", f"multiboot {BOOTWIRE}:Boot0001"])
        machine = bench.power_on("uefi", options=[*drive(disk), "-action", "reboot=reset"])
        bench.said(machine, "(?s)told: a network program: Boot0001.*starting Boot0001 .*MARK, from a disk")


@pytest.mark.parametrize(
    ("fallback", "ends"),
    [
        ("local-disk", "MARK, from a disk"),
        ("next-device", "Back to the firmware.*Command line: "),
    ],
)
def test_ask_without_an_answer_falls_back_as_configured(bench: Bench, tmp_path: Path, fallback: str, ends: str) -> None:
    """The firmware's next device is the same card, by HTTP."""
    disk = esp_disk(tmp_path / "a.img", tmp_path)
    with bench:
        bench.start_dhcp()
        more = ["--program", "ask", "--program-fallback", fallback, "--program-tries", "2"]
        bench.serve("uefi", more=more)
        machine = bench.power_on("uefi", options=drive(disk))
        bench.said(machine, f"(?is)no answer, falling back.*{ends}")


def test_ask_without_an_answer_starts_over_if_that_is_its_fallback(bench: Bench) -> None:
    with bench:
        bench.start_dhcp()
        bench.serve("uefi", more=["--program", "ask", "--program-fallback", "reboot", "--program-tries", "1"])
        machine = bench.power_on("uefi", options=["-action", "reboot=reset"])
        bench.said(machine, "(?s)no answer, falling back.*starting Boot0001.*Bootwire ask 1")
        bench.server.wait_for(lambda _: heard_of(bench)[facts.Discovered] > 1, "a second DISCOVER", 30)
        kinds = [type(fact) for fact in bench.server.facts(MAC)]
    assert facts.Discovered in kinds[kinds.index(facts.ProgramSaid) :]


def test_ask_that_holds_says_so_and_stays_until_somebody_starts_the_machine_over(bench: Bench, tmp_path: Path) -> None:
    monitor = Monitor(tmp_path)
    with bench:
        bench.start_dhcp()
        more = ["--program", "ask", "--program-fallback", "hold", "--program-tries", "1"]
        bench.serve("uefi", more=[*more, "--bootinfo-answer", "partition 1"])
        machine = bench.power_on("uefi", options=["-action", "reboot=reset", *monitor.options])
        bench.said(machine, r"(?s)no loader .*the last try, falling back\s+Holding here: .*starts over\s")
        told(bench, facts.ProgramSaid, lambda fact: "falling back" in fact.text)
        held, heard = machine.text, heard_of(bench)
        threading.Event().wait(15)  # `ask` asks again after 5 s, the firmware goes on at once
        assert (machine.text, heard_of(bench), machine.failed) == (held, heard, False)
        with monitor:
            monitor.do("sendkey ctrl-alt-delete")
            bench.said(machine, "(?s)Holding here.*Bootwire ask 1")
        bench.server.wait_for(
            lambda _: heard_of(bench)[facts.Discovered] > heard[facts.Discovered], "a second DISCOVER", 30
        )
    assert heard[facts.BootinfoAsked] == 1
