"""Facts folded into boots."""

from __future__ import annotations

import dataclasses

import pytest

from bootwire import facts
from bootwire.facts import Fact, Record
from bootwire.observe.boots import RECORDS, STAGES, Boots, stage_of
from bootwire.observe.boots import fold as refold

MAC, OTHER = "52:54:00:12:34:56", "52:54:00:00:00:02"
IP = "10.0.0.9"


def discover(client: str = "UEFI x64", machine: str = MAC) -> Fact:
    return facts.Discovered(machine, client, 7, "", 1, "eth0")


def done(name: str, octets: int, seconds: float, protocol: str = "http", resent: int = 0) -> Fact:
    return facts.TransferDone(MAC, protocol, name, IP, octets, seconds, resent)


def fold(*story: tuple[float, Fact]) -> Boots:
    boots = Boots()
    for second, fact in story:
        boots.take(Record(1e9 + second, 10**15 + round(second * 1e9), fact))
    return boots


WHOLE = (
    (0.0, discover()),
    (0.5, facts.Offered(MAC, "binl", "", "10.0.0.1", "eth0", "EDK2 asks port 4011")),
    (1.0, facts.AddressSeen(MAC, IP, "10.0.0.254")),
    (1.5, done("x86_64/snponly.efi", 300_000, 0.25, "tftp", resent=1468)),
    (2.0, facts.ScriptServed(MAC, "autoexec.ipxe", IP, "iPXE", "")),
    (2.5, discover("iPXE 2.0 UEFI x64")),
    (3.0, facts.ScriptServed(MAC, "boot.ipxe", IP, "iPXE", "")),
    (4.0, done("kernel", 12_000_000, 0.5)),
    (5.0, done("initrd/0", 40_000_000, 0.75)),
    (5.5, done("initrd/1", 1_000, 0.25)),
    (6.0, facts.HandedOver(MAC, IP, 52_301_000, 3.0)),
)


def test_a_whole_boot_has_every_stage_with_its_time_and_octets() -> None:
    (boot,) = fold(*WHOLE).all()
    told = {s.name: (s.began, s.ended, s.octets, s.transfers) for s in boot.stages.values()}
    assert told == {
        "discover": (0.0, 0.5, 0, 0),
        "address": (0.5, 1.0, 0, 0),
        "loader": (1.25, 1.5, 300_000, 1),
        "script": (2.0, 3.0, 0, 0),
        "kernel": (3.5, 4.0, 12_000_000, 1),
        "initrd": (4.25, 5.5, 40_001_000, 2),
        "hand-over": (6.0, 6.0, 0, 0),
    }
    assert tuple(boot.stages) == tuple(name for name in STAGES if name not in ("pxe", "program", "alive"))
    assert (boot.client, boot.address, boot.seconds, boot.handed_over) == ("UEFI x64", IP, 6.0, True)
    assert (boot.discovers, boot.loader_transfers, boot.resent, boot.failures) == (2, 1, 1468, 0)


def test_the_loader_asking_again_is_the_same_boot_and_the_firmware_asking_again_is_the_next() -> None:
    boots = fold(*WHOLE[:7], (60.0, discover()), (60.5, done("x86_64/snponly.efi", 300_000, 0.25, "tftp")))
    first, second = boots.all()
    assert (first.loader_transfers, second.loader_transfers) == (1, 1)
    assert second.stages["discover"].began == 0.0
    assert boots.latest(MAC) is second


def test_a_loader_that_is_fetched_twice_in_one_boot_shows() -> None:
    (boot,) = fold(
        (0, discover("BIOS")),
        (1, done("bios/undionly.kpxe", 70_000, 0.5, "tftp")),
        (2, discover("iPXE 1.0 BIOS")),
        (3, done("bios/undionly.kpxe", 70_000, 0.5, "tftp")),
    ).all()
    assert boot.loader_transfers == 2


def test_ipxe_in_the_rom_that_asks_after_its_kernel_begins_anew() -> None:
    assert len(fold((0, discover("iPXE")), (1, done("kernel", 1, 0.5)), (9, discover("iPXE"))).all()) == 2


def test_a_boot_whose_beginning_was_not_seen_begins_with_its_first_transfer() -> None:
    (boot,) = fold((5.0, done("kernel", 1_000, 2.0))).all()
    assert (boot.stages["kernel"].began, boot.stages["kernel"].ended) == (0.0, 2.0)


def test_a_failed_transfer_counts_and_finishes_no_stage() -> None:
    (boot,) = fold((0, discover()), (1, facts.TransferFailed(MAC, "http", "kernel", IP, 5, 0.5, "hung up"))).all()
    assert (boot.failures, list(boot.stages)) == (1, ["discover"])


def test_machines_are_told_apart_and_the_server_is_none() -> None:
    boots = fold((0, discover()), (0, discover(machine=OTHER)), (1, facts.Stopped("", "Ctrl-C")))
    assert [boot.machine for boot in boots.all()] == [MAC, OTHER]


def test_the_oldest_boots_are_forgotten() -> None:
    boots = Boots(kept=10)
    for number in range(100):
        boots.take(Record(0.0, number, discover(machine=f"m{number}")))
    assert [boot.machine for boot in boots.all()] == [f"m{number}" for number in range(90, 100)]
    assert boots.latest("m0") is None
    assert boots.latest("m99") is not None


@pytest.mark.parametrize(("name", "stage"), [
    ("x86_64/snponly.efi", "loader"), ("bios/undionly.kpxe", "loader"), ("pxelinux.0", "loader"),
    ("kernel", "kernel"), ("boot/52-54-00-12-34-56/kernel", "kernel"), ("initrd/0", "initrd"),
    ("autoexec.ipxe", "script"), ("boot.ipxe", "script"), ("notes.txt", ""), ("", ""), ("BOOTX64.EFI", "loader"),
])  # fmt: skip
def test_a_name_tells_its_stage(name: str, stage: str) -> None:
    assert stage_of(name) == stage


def test_a_boot_program_is_a_stage_and_its_reset_is_another_boot_without_a_verdict() -> None:
    """Five times in a row: told by bootinfo to start over, it does."""
    story = [(20.0 * i + j, fact) for i in range(5) for j, fact in enumerate(
        (discover("iPXE 1.0.0 BIOS"), done("programs/bios/ask.pxe", 11_600, 0.5, "tftp"))
    )]  # fmt: skip
    boots = fold(*story).all()
    assert [list(boot.stages) for boot in boots] == [["discover", "program"]] * 5
    assert all(boot.verdict is None for boot in boots)


def test_a_loader_after_a_boot_program_belongs_to_the_same_boot() -> None:
    (boot,) = fold(
        (0, discover("iPXE 1.0.0 BIOS")),
        (1, done("programs/bios/hello.pxe", 14_600, 0.5, "tftp")),
        (5, done("bios/undionly.kpxe", 75_000, 0.5, "tftp")),
        (8, discover("iPXE 2.0.0 BIOS")),
    ).all()
    assert list(boot.stages) == ["discover", "program", "loader"]


def test_every_kind_of_fact_can_be_folded() -> None:
    plain = {"int": 0, "float": 0.0, "bool": True}
    boots = Boots()
    for kind in facts.KINDS:
        fact = kind(**{f.name: plain.get(str(f.type), MAC) for f in dataclasses.fields(kind)})
        boots.take(Record(0.0, 0, fact))
    assert len(boots.all()) == 1


def test_facts_without_a_mac_are_joined_by_the_address_the_machine_has() -> None:
    (boot,) = fold(
        (0, discover()),
        (1, facts.AddressSeen(MAC, IP, "10.0.0.254")),
        (2, facts.TransferDone("", "tftp", "x86_64/snponly.efi", IP, 300_000, 0.25)),
    ).all()
    assert list(boot.stages) == ["discover", "address", "loader"]


def test_what_is_under_way_and_how_far_it_is_shows() -> None:
    boots = fold((0, discover()), (1, facts.TransferStarted(MAC, "http", "initrd/0", IP, 1_000)))
    boots.progress(MAC, "http", "initrd/0", 400)
    (boot,) = boots.all()
    running = boot.running()
    assert running
    assert (running.octets, running.size, running.ended) == (400, 1_000, None)
    boots.take(Record(0, 10**15 + 2 * 10**9, facts.TransferDone(MAC, "http", "initrd/0", IP, 1_000, 1.0)))
    assert boot.running() is None
    assert [(t.began, t.ended, t.octets) for t in boot.transfers] == [(1.0, 2.0, 1_000)]


def test_an_address_asked_for_after_the_hand_over_is_a_sign_of_life() -> None:
    silent = facts.Silent(MAC, "dhcp", "it does not ask for a network boot", "ordinary host (udhcp 1.36)")
    (boot,) = fold(*WHOLE, (12.0, silent)).all()
    assert boot.stage == "alive"
    assert boot.stages["alive"].began == 12.0


def test_a_host_that_only_asks_for_a_lease_is_no_boot() -> None:
    assert not fold((0, facts.Silent(MAC, "dhcp", "it does not ask for a network boot", "ordinary host"))).all()


def test_a_boot_folded_again_from_its_own_records_is_the_same() -> None:
    boots = fold(*WHOLE)
    (boot,) = boots.all()
    (again,) = refold(boot.records, boot.number).all()
    assert (again.stages, again.transfers, again.verdict) == (boot.stages, boot.transfers, boot.verdict)


def test_records_of_one_boot_are_bounded_and_counted() -> None:
    (boot,) = fold((0, discover()), *((i, done(f"file{i}", 1, 0.1)) for i in range(1_000))).all()
    assert (len(boot.records), boot.left_out) == (RECORDS, 1_001 - RECORDS)
    assert len(boot.transfers) == 256


def test_a_new_attempt_long_after_the_last_sign_is_the_next_boot() -> None:
    assert len(fold((0, discover()), (28, discover()), (400, discover())).all()) == 2


def test_an_installer_that_fetches_its_answers_or_reports_is_a_sign_of_life() -> None:
    document = facts.DocumentServed(MAC, "preseed", IP, 100, "debian")
    installed = facts.StateChanged(MAC, "installed", "debian", 0, "it phoned home")
    for fact in (document, installed):
        assert fold(*WHOLE, (20.0, fact)).all()[0].stage == "alive"
    assert fold(*WHOLE, (6.1, installed)).all()[0].stage == "hand-over"  # it counts as installed since it handed over


def test_a_file_that_went_out_a_moment_before_its_address_was_told_belongs_to_the_boot() -> None:
    boots = Boots()
    early = facts.NotFound("", "tftp", "nosuch.0", IP, "no such file")
    for second, fact in ((0, discover()), (1.0, early), (1.001, facts.AddressSeen(MAC, IP, "10.0.0.254"))):
        boots.take(Record(second, round(second * 1e9), fact))
    assert boots.all()[0].missing == ["nosuch.0"]
    boots.take(Record(9, 9 * 10**9, facts.NotFound("", "tftp", "other.0", "10.0.0.99", "no such file")))
    boots.take(Record(19, 19 * 10**9, facts.AddressSeen(MAC, "10.0.0.99", "10.0.0.254")))
    assert boots.all()[0].missing == ["nosuch.0"]
