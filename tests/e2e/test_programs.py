"""Boot programs on real firmware: what they report is what the machine is, and they do what they are told."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path

import pytest

from bootwire import facts
from bootwire.lab.server import start_server
from bootwire.policy import inventory
from bootwire.programs.build import main
from disks import LINUX_DATA, UNIQUE, code, gpt_disk, logical, mbr_disk
from lab_bench import BOOTWIRE, MAC, Bench, Monitor, heard_of, told, type_at_prompt

pytestmark = pytest.mark.e2e

GUIDE = Path(__file__).parents[2] / "docs/guides/first-boot-program.md"
UUID = "00112233-4455-6677-8899-aabbccddeeff"


def drive(path: Path, kind: str, number: int = 0) -> list[str]:
    return [
        "-drive", f"if=none,id=disk{number},format=raw,file={path}",
        "-device", f"{kind},drive=disk{number},bootindex={number + 1}",
    ]  # fmt: skip


def test_hello_reports_what_the_machine_is_and_goes_on_to_a_kernel(bench: Bench, tmp_path: Path) -> None:
    gpt = gpt_disk(tmp_path / "gpt.img", 64 << 20, {1: (2048, 10239, "boot"), 3: (10240, 20479, "root disk")}, {})
    entries = [(0x80, 0x83, 2048, 8192), (0, 0x05, 16384, 20000)]
    chain = {16384: logical(0x82, 63, 4000, (8192, 4000)), 16384 + 8192: logical(0x83, 63, 3000)}
    mbr = mbr_disk(tmp_path / "mbr.img", 32 << 20, entries, chain)
    with bench:
        bench.start_dhcp()
        bench.serve("bios", more=["--program", "hello"])
        smbios = f"type=1,manufacturer=Acme,product=Rocket,serial=S-77,uuid={UUID}"
        options = ["-cpu", "Haswell", "-m", "320", "-smbios", smbios]
        options += [*drive(gpt, "virtio-blk-pci"), *drive(mbr, "ide-hd", 1)]
        booted = bench.finish(bench.power_on("bios", options=options))
    assert booted.token in booted.command_line.split()
    (report,) = [fact for fact in booted.facts if isinstance(fact, facts.ReportReceived)]
    record = inventory.from_text(report.record)
    assert record.machine == MAC
    assert record.cpu.brand == "Intel Core Processor (Haswell)"
    assert (record.cpu.vendor, record.cpu.family, record.cpu.model) == ("GenuineIntel", 6, 60)
    assert {"lm", "avx2", "hypervisor"} <= set(record.cpu.features)
    assert record.memory == 320 << 20
    assert (record.manufacturer, record.product, record.serial, record.uuid) == ("Acme", "Rocket", "S-77", UUID)
    assert (record.firmware, record.pxe, record.undi, record.server) == ("bios", "2.1", "2.1.0", BOOTWIRE)
    assert record.nic == "1af4:1000"
    first, second = record.disks
    assert (first.size, first.table, first.identity) == (64 << 20, "gpt", str(UNIQUE))
    assert [(p.index, p.start, p.size, p.kind, p.name) for p in first.partitions] == [
        (1, 2048 * 512, 8192 * 512, str(LINUX_DATA), "boot"),
        (3, 10240 * 512, 10240 * 512, str(LINUX_DATA), "root disk"),
    ]
    assert (second.size, second.table, second.identity) == (32 << 20, "mbr", "0x12345678")
    assert [(p.index, p.kind, p.start // 512, p.size // 512, p.active) for p in second.partitions] == [
        (1, "0x83", 2048, 8192, True),
        (2, "0x05", 16384, 20000, False),
        (5, "0x82", 16447, 4000, False),
        (6, "0x83", 24639, 3000, False),
    ]
    assert [name for _, name in booted.loaders][-1] == "bios/undionly.kpxe"
    assert "The server has it" in booted.machine.text


def test_a_fleet_decides_by_what_hello_reported(bench: Bench, tmp_path: Path) -> None:
    disk = mbr_disk(tmp_path / "a.img", 64 << 20, [])
    with bench:
        bench.start_dhcp()
        fleet = tmp_path / "fleet.toml"
        images = f'kernel = "{bench.linux.kernel}"\ninitrd = "{bench.initrds[0]}"\ncmdline = "console=ttyS0 size='
        match = '{ "cpu.vendor" = "GenuineIntel", memory = ">= 300MiB", disk = ">= 60MiB" }'
        fleet.write_text(
            f'[profiles.large]\n{images}large"\n[profiles.small]\n{images}small"\n'
            f'[[group]]\nname = "large ones"\nmatch = {match}\nprofile = "large"\n[[group]]\nprofile = "small"\n'
        )
        argv = ["serve", str(fleet), "-i", "eth0", "--state-dir", str(bench.state), "--no-fetch", "--program", "hello"]
        bench.server = start_server(bench.ours, argv, tmp_path)
        options = ["-cpu", "Haswell", "-m", "320", *drive(disk, "virtio-blk-pci")]
        booted = bench.finish(bench.power_on("bios", options=options))
    assert booted.command_line == "console=ttyS0 size=large"
    scripts = [fact.because for fact in booted.facts if isinstance(fact, facts.ScriptServed)]
    assert "large ones" in scripts[-1]


def test_hello_over_the_pxe_of_undionly(bench: Bench) -> None:
    """As on a machine whose ROM is no iPXE: what it is offered there, undionly, has a PXE stack of its own."""
    with bench:
        bench.start_dhcp()
        bench.serve("bios", more=["--program", "hello"])
        machine = bench.power_on("bios")
        machine.wait_for("Press Ctrl-B for the iPXE command line", 30)
        machine.type("\x02")
        machine.wait_for("iPXE> ", 10)
        type_at_prompt(machine, "ifconf --configurator dhcp net0")
        machine.type(f"chain tftp://{BOOTWIRE}/bios/undionly.kpxe\r")
        booted = bench.finish(machine)
    assert booted.token in booted.command_line.split()
    (report,) = [fact for fact in booted.facts if isinstance(fact, facts.ReportReceived)]
    assert inventory.from_text(report.record).nic == "1af4:1000"
    names = [fact.name for fact in booted.delivered if fact.protocol == "tftp"]
    assert names == ["bios/undionly.kpxe", "programs/bios/hello.pxe", "bios/undionly.kpxe"]


def test_the_first_boot_program_of_the_guide_runs(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "first.c"
    source.write_text(GUIDE.read_text().split("```c\n")[1].split("```")[0])
    assert main([str(source)]) == 0
    with bench:
        bench.start_dhcp()
        bench.serve("bios", more=["--program", str(source.with_suffix(".pxe"))])
        booted = bench.finish(bench.power_on("bios"))
    assert booted.token in booted.command_line.split()
    assert booted.machine.said("Hello, world: 6[0-9]{2} KiB, and no operating system")
    assert booted.machine.said("It came back: are you there")
    assert booted.machine.debug == "first: started\n"
    told = [(fact.how, fact.text) for fact in booted.facts if isinstance(fact, facts.ProgramSaid)]
    assert told == [("log", "hello, server"), ("echo", "are you there?")]


def test_ask_boots_the_memory_file_system_it_is_told_of(bench: Bench) -> None:
    with bench:
        bench.start_dhcp()
        bench.serve("bios", more=["--program", "ask", "--bootinfo"])
        booted = bench.finish(bench.power_on("bios"))
    assert booted.token in booted.command_line.split()
    assert booted.machine.said(rf"told: a memory file system: http://{BOOTWIRE}(:\d+)?/mfs/")
    (answer,) = [fact for fact in booted.facts if isinstance(fact, facts.BootinfoAnswered)]
    assert answer.answer.startswith("memory http://")


def test_ask_boots_a_memory_file_system_by_a_url_of_elsewhere(bench: Bench, tmp_path: Path) -> None:
    files = tmp_path / "files" / "linux-mfs"
    with bench:
        files.mkdir(parents=True)
        shutil.copy(bench.linux.kernel, files / "bzImage")
        shutil.copy(bench.initrds[0], files / "rootfs.cpio.gz")
        bench.start_dhcp()
        answer = f"memory http://{BOOTWIRE}/files/linux-mfs -- console=ttyS0 by=url"
        bench.serve("bios", more=["--program", "ask", "--bootinfo-answer", answer, "--files", str(files.parent)])
        booted = bench.finish(bench.power_on("bios"))
    assert booted.command_line == "console=ttyS0 by=url"
    names = [fact.name for fact in booted.delivered if fact.protocol == "http"]
    assert {"linux-mfs/bzImage", "linux-mfs/rootfs.cpio.gz"} <= {name.removeprefix("files/") for name in names}


@pytest.mark.parametrize(
    ("answer", "mark"),
    [
        ("partition 0", "MBR 80 "),
        ("partition 2", "VBR2 80 00004000"),
        ("partition 5", "VBR5 80 0000503F"),
        ("system-id 131", "VBR2 80 00004000"),
        ("disk 0x81 partition 1", "GPT 81 00000800"),
    ],
)
def test_ask_starts_the_boot_record_of_a_partition(bench: Bench, tmp_path: Path, answer: str, mark: str) -> None:
    records = {0: code(tmp_path, "MBR"), 16384: code(tmp_path, "VBR2"), 20480: logical(0x82, 63, 100)}
    records[20543] = code(tmp_path, "VBR5")
    first = mbr_disk(
        tmp_path / "a.img", 16 << 20, [(0, 7, 2048, 64), (0, 0x83, 16384, 64), (0, 5, 20480, 4096)], records
    )
    second = gpt_disk(tmp_path / "b.img", 16 << 20, {1: (2048, 4095, "x")}, {2048: code(tmp_path, "GPT")})
    with bench:
        bench.start_dhcp()
        bench.serve("bios", more=["--program", "ask", "--bootinfo-answer", answer])
        options = [*drive(first, "virtio-blk-pci"), *drive(second, "virtio-blk-pci", 1)]
        machine = bench.power_on("bios", options=options)
        bench.said(machine, mark, 90)


def test_ask_chains_another_network_program(bench: Bench, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "other.0").write_bytes(code(tmp_path, "OTHER"))
    with bench:
        bench.start_dhcp()
        answer = f"multiboot {BOOTWIRE}:other.0"
        bench.serve("bios", more=["--program", "ask", "--bootinfo-answer", answer, "--files", str(files)])
        machine = bench.power_on("bios")
        bench.said(machine, "OTHER ", 90)


def test_ask_chains_pxelinux_which_finds_its_files_beside_itself(bench: Bench, tmp_path: Path) -> None:
    """PXELINUX takes its directory from the file name in the ROM's cached packet, where `ask` has put its own."""
    root = tmp_path / "files"
    with bench:
        (root / "pxe" / "pxelinux.cfg").mkdir(parents=True)
        for source in ("/usr/lib/PXELINUX/pxelinux.0", "/usr/lib/syslinux/modules/bios/ldlinux.c32"):
            shutil.copy(source, root / "pxe")
        shutil.copy(bench.linux.kernel, root / "pxe" / "linux")
        shutil.copy(bench.initrds[0], root / "pxe" / "initrd.gz")
        label = "DEFAULT one\nLABEL one\n KERNEL linux\n APPEND initrd=initrd.gz console=ttyS0 by=pxelinux\n"
        (root / "pxe" / "pxelinux.cfg" / "default").write_text(label)
        bench.start_dhcp()
        answer = f"multiboot {BOOTWIRE}:pxe/pxelinux.0"
        bench.serve("bios", more=["--program", "ask", "--bootinfo-answer", answer, "--files", str(root)])
        booted = bench.finish(bench.power_on("bios"))
    assert "by=pxelinux" in booted.command_line.split()


def test_ask_waits_until_an_order_comes_and_then_goes(bench: Bench, tmp_path: Path) -> None:
    disk = mbr_disk(tmp_path / "a.img", 1 << 20, [(0x80, 0x83, 64, 64)], {64: code(tmp_path, "VBR")})
    with bench:
        bench.start_dhcp()
        bench.serve("bios", more=["--program", "ask", "--bootinfo-answer", "wait"])
        machine = bench.power_on("bios", options=drive(disk, "virtio-blk-pci"))
        bench.said(machine, "told to wait", 90)
        order = [sys.executable, "-m", "bootwire", "order", MAC, "partition", "1", "--state-dir", str(bench.state)]
        assert b"it says so" in bench.ours.run(order)
        bench.said(machine, "VBR 80 00000040", 60)


def test_ask_starts_the_machine_over(bench: Bench) -> None:
    with bench:
        bench.start_dhcp()
        bench.serve("bios", more=["--program", "ask", "--bootinfo-answer", "reboot"])
        machine = bench.power_on("bios", options=["-action", "reboot=reset"])
        bench.said(machine, "(?s)start over.*Bootwire ask 1.*start over", 120)


@pytest.mark.parametrize(
    ("fallback", "ends"),
    [
        ("local-disk", "MBR 80 "),
        ("next-device", "Back to the firmware(?s:.*)MBR 80 "),
        ("next-program", "OTHER "),
        ("reboot", "(?s)falling back.*Bootwire ask 1"),
    ],
)
def test_ask_without_an_answer_falls_back_as_configured(bench: Bench, tmp_path: Path, fallback: str, ends: str) -> None:
    disk = mbr_disk(tmp_path / "a.img", 1 << 20, [(0x80, 0x83, 64, 64)], {0: code(tmp_path, "MBR")})
    files = tmp_path / "files"
    files.mkdir()
    (files / "other.0").write_bytes(code(tmp_path, "OTHER"))
    with bench:
        bench.start_dhcp()
        more = ["--program", "ask", "--program-fallback", fallback, "--program-tries", "1"]
        bench.serve("bios", more=[*more, "--program-next", "other.0", "--files", str(files)])
        machine = bench.power_on("bios", options=[*drive(disk, "virtio-blk-pci"), "-action", "reboot=reset"])
        bench.said(machine, ends, 120)
        note = told(bench, facts.ProgramSaid)
        assert "no answer" in note.text


def test_ask_that_holds_says_so_and_stays_until_somebody_starts_the_machine_over(bench: Bench, tmp_path: Path) -> None:
    """It asks no more and goes nowhere while the machine's own clock goes on; Ctrl-Alt-Del is still heard."""
    monitor = Monitor(tmp_path)
    with bench:
        bench.start_dhcp()
        more = ["--program", "ask", "--program-fallback", "hold", "--program-tries", "1"]
        bench.serve("bios", more=[*more, "--bootinfo-answer", "partition 1"])
        machine = bench.power_on("bios", options=["-action", "reboot=reset", *monitor.options])
        bench.said(machine, r"(?s)is not there.*the last try, falling back\s+Holding here: .*starts over\s", 120)
        told(bench, facts.ProgramSaid, lambda fact: "falling back" in fact.text)
        held, heard = machine.text, heard_of(bench)
        with monitor:
            began = monitor.bios_ticks()
            while monitor.bios_ticks() - began < 18 * 15:  # 15 s: `ask` asks again after 5, the firmware at once
                threading.Event().wait(0.25)
            assert (machine.text, heard_of(bench)) == (held, heard)
            monitor.do("sendkey ctrl-alt-delete")
            bench.said(machine, "(?s)Holding here.*Bootwire ask 1", 120)
        bench.server.wait_for(
            lambda _: heard_of(bench)[facts.Discovered] > heard[facts.Discovered], "a second DISCOVER", 30
        )
    assert heard[facts.BootinfoAsked] == 1
