"""Every kind of firmware from power-on to a kernel that prints its own command line, and what Bootwire tells of it.

Each boots once; every claim is about that one boot (`--dist loadscope` keeps it in one worker).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bootwire import facts
from bootwire.lab import initrd
from bootwire.lab.firmware import FIRMWARE
from bootwire.lab.linux import Linux
from lab_bench import BOOTWIRE, DHCP_SERVER, SECOND, Bench, Booted

pytestmark = pytest.mark.e2e

# firmware -> the DHCP server beside it, and the one loader that must be delivered: none where the ROM is an iPXE
CASES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "bios": ("dnsmasq", []),
    "bios-e1000": ("udhcpd", []),
    "uefi": ("dnsmasq", [("tftp", "x86_64/snponly.efi")]),
    "uefi-http": ("udhcpd", [("http", "x86_64/snponly.efi")]),
    "uefi-ipxe": ("udhcpd", []),
    "uefi-arm64": ("dnsmasq", [("tftp", "arm64/ipxe.efi")]),
}


@pytest.fixture(scope="module", params=CASES)
def booted(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    linux: Callable[[str], Linux],
    state: Path,
) -> Booted:
    name: str = request.param
    system = linux(FIRMWARE[name].architecture)
    with Bench(tmp_path_factory.mktemp(name), system, state, CASES[name][0]) as bench:
        bench.start_dhcp()
        bench.serve(name)
        return bench.finish(bench.power_on(name))


def test_the_kernel_prints_its_own_command_line(booted: Booted, record_property: Callable[[str, object], None]) -> None:
    assert booted.token in booted.command_line.split()
    record_property("booted", booted.row())


def test_a_file_of_the_second_initrd_is_there(booted: Booted) -> None:
    assert f"{initrd.MARK} file /bootwire/second: {SECOND}" in booted.machine.text


def test_the_loader_is_delivered_once_and_only_where_it_is_needed(booted: Booted) -> None:
    assert booted.loaders == CASES[booted.machine.firmware.name][1]


def test_kernel_and_initrds_are_delivered_whole_and_once(booted: Booted) -> None:
    images = [booted.linux.kernel, *booted.initrds]
    delivered = [(f.name, f.octets) for f in booted.delivered if f.name == "kernel" or f.name.startswith("initrd/")]
    names = ["kernel", "initrd/0", "initrd/1"]
    assert delivered == [(name, image.stat().st_size) for name, image in zip(names, images, strict=True)]


def test_the_story_is_told_in_order(booted: Booted) -> None:
    kinds = [type(fact) for fact in booted.facts]
    story = [
        facts.Discovered,
        facts.Offered,
        facts.AddressSeen,
        facts.ScriptServed,
        facts.TransferDone,
        facts.HandedOver,
    ]
    places = [kinds.index(kind) for kind in story[:3]]
    places += [len(kinds) - 1 - kinds[::-1].index(kind) for kind in story[3:5]] + [kinds.index(facts.HandedOver)]
    assert places == sorted(places)


def test_the_address_is_from_the_network_s_own_dhcp_server(booted: Booted) -> None:
    given = [fact for fact in booted.facts if isinstance(fact, facts.AddressSeen)]
    assert {fact.by for fact in given} == {DHCP_SERVER}


def test_every_offer_names_us(booted: Booted) -> None:
    offers = [fact for fact in booted.facts if isinstance(fact, facts.Offered)]
    assert {fact.server for fact in offers} == {BOOTWIRE}


def test_nothing_fails_is_refused_or_needs_a_person(booted: Booted) -> None:
    bad = (facts.TransferFailed, facts.Refused, facts.Warned, facts.Silent, facts.RivalSeen)
    assert [record.fact for record in booted.records if isinstance(record.fact, bad)] == []


def test_the_verdict_is_that_it_booted(booted: Booted) -> None:
    verdicts = [fact for fact in booted.facts if isinstance(fact, facts.Verdict)]
    assert [(fact.state, fact.stage) for fact in verdicts] == [("booted", "hand-over")]
