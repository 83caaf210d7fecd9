"""What the PXE specification itself offers: menus, boot server discovery; and PXELINUX with all else over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bootwire import facts
from bootwire.lab.firmware import Machine
from bootwire.lab.server import start_server
from bootwire.observe.boots import stage_of
from lab_bench import MAC, Bench, Booted, type_at_prompt

pytestmark = pytest.mark.e2e

F8, DOWN = "\x1b[19~", "\x1b[B"


def plain_rom(bench: Bench, *commands: str) -> Machine:
    """A BIOS machine whose ROM does not say that it is an iPXE, as Intel's does not."""
    machine = bench.power_on("bios")
    machine.wait_for("Press Ctrl-B for the iPXE command line", 30)
    machine.type("\x02")
    machine.wait_for("iPXE> ", 10)
    type_at_prompt(machine, "set user-class plain", *commands)
    return machine


def fetched(booted: Booted) -> list[tuple[str, str]]:
    """Protocol and name of all that was delivered, in order."""
    return [(fact.protocol, fact.name) for fact in booted.delivered]


def asked_for(booted: Booted) -> list[int]:
    """Boot items that the machine asked the boot server for."""
    return [fact.item for fact in booted.facts if isinstance(fact, facts.PxeRequested)]


def test_bios_through_lpxelinux_over_http(bench: Bench, record_property: Callable[[str, object], None]) -> None:
    with bench:
        bench.start_dhcp()
        bench.serve("bios", more=["--loader", "pxelinux"])
        machine = plain_rom(bench, "ifconf --configurator dhcp net0", "clear user-class")
        machine.type("chain tftp://${proxydhcp/next-server}/${proxydhcp/filename}\r")
        booted = bench.finish(machine)
    assert booted.token in booted.command_line.split()
    assert fetched(booted) == [
        ("tftp", "bios/lpxelinux.0"), ("http", "bios/ldlinux.c32"), ("http", "kernel"), ("http", "initrd/0"),
        ("http", "initrd/1"),
    ]  # fmt: skip
    assert any(isinstance(fact, facts.HandedOver) for fact in booted.facts)
    record_property("booted", booted.row())


def test_bios_through_a_menu_of_one_that_nobody_sees(bench: Bench) -> None:
    with bench:
        bench.start_dhcp()
        bench.serve("bios", more=["--menu", "Network boot", "--loader", "ipxe"])
        machine = plain_rom(bench)
        machine.type("autoboot net0\r")
        booted = bench.finish(machine)
    assert booted.token in booted.command_line.split()
    assert 0x8000 in asked_for(booted)
    assert booted.loaders == [("tftp", "bios/undionly.kpxe")]


@pytest.mark.parametrize("discovery", ["unicast", "broadcast", "multicast"])
def test_uefi_through_a_menu_of_one(bench: Bench, discovery: str) -> None:
    with bench:
        bench.start_dhcp()
        bench.serve("uefi", more=["--menu", "Network boot", "--discovery", discovery])
        booted = bench.finish(bench.power_on("uefi"))
    assert booted.token in booted.command_line.split()
    assert 0x8000 in asked_for(booted)
    assert [stage_of(name) for _, name in booted.loaders] == ["loader"]


def test_the_entry_that_somebody_chooses_boots(bench: Bench, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.toml"
    with bench:
        initrds = ", ".join(f'"{path}"' for path in bench.initrds)
        fleet.write_text(f"""
[profiles.choose]
menu = [{{profile = "first", title = "The first system"}}, {{profile = "second", title = "The second system"}}]
prompt = "Press F8 to choose a system"
seconds = 20
[profiles.first]
kernel = "{bench.linux.kernel}"
initrd = [{initrds}]
cmdline = "console=ttyS0 {bench.token} system=first"
[profiles.second]
kernel = "{bench.linux.kernel}"
initrd = [{initrds}]
cmdline = "console=ttyS0 {bench.token} system=second"
[[machine]]
mac = "{MAC}"
profile = "choose"
""")
        bench.start_dhcp()
        options = ["-i", "eth0", "--state-dir", str(bench.state), "--no-fetch"]
        bench.server = start_server(bench.ours, ["serve", str(fleet), *options], bench.directory)
        machine = bench.power_on("bios")
        machine.wait_for("Press F8 to choose a system", 60)
        machine.press(F8)
        machine.wait_for("The second system", 20)
        machine.press(DOWN)
        machine.press("\r")
        booted = bench.finish(machine)
    assert "system=second" in booted.command_line
    assert 0x8001 in asked_for(booted)
    (decision,) = [fact for fact in booted.facts if isinstance(fact, facts.Decided) and fact.profile == "second"]
    assert "chosen in its menu" in decision.because
