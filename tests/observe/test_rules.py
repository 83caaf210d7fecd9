"""Verdicts: what went wrong, told from what was seen of a boot and from what was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bootwire import facts
from bootwire.facts import Fact, Record, Verdict
from bootwire.observe.boots import Boots
from bootwire.observe.rules import CAUSES, RULES

MAC, OTHER, IP, US, THEM = "52:54:00:12:34:56", "52:54:00:00:00:02", "10.0.0.9", "10.0.0.1", "10.0.0.254"
LOADER = "x86_64/snponly.efi"
EPOCH = 10**15

Story = tuple[tuple[float, Fact], ...]


def discover(client: str = "UEFI x64", retry: int = 0, relay: str = "", machine: str = MAC) -> Fact:
    return facts.Discovered(machine, client, 0 if client == "BIOS" else 7, "", 1, "eth0", relay, retry=retry)


def offer(recipe: str = "binl", file: str = LOADER) -> Fact:
    return facts.Offered(MAC, recipe, file, US, "eth0", "it asks port 4011")  # type: ignore[arg-type]


def fetched(name: str, octets: int = 300_000, protocol: str = "tftp") -> Fact:
    return facts.TransferDone(MAC, protocol, name, IP, octets, 0.2)


def failed(name: str, because: str, octets: int = 0, protocol: str = "tftp") -> Fact:
    return facts.TransferFailed(MAC, protocol, name, IP, octets, 5.0, because)


def script(name: str = "boot.ipxe") -> Fact:
    return facts.ScriptServed(MAC, name, IP, "iPXE 2.0.0 efi x86_64", "")


ADDRESS = facts.AddressSeen(MAC, IP, THEM)
OTHERS_ADDRESS = facts.AddressSeen(OTHER, "10.0.0.77", THEM)
REQUEST = facts.PxeRequested(MAC, "UEFI x64", IP, 68)
ANSWER = facts.PxeAnswered(MAC, LOADER, US, IP, "UEFI x64")
SILENT = facts.Silent(MAC, "dhcp", "it goes on with its own disk: rule 3", "UEFI x64")
NOT_ARMED = "profile linux installs, and it may not: it was never armed; bootwire arm 52:54:00:12:34:56"
UNREADABLE = "this server may not read it"
HANDED_OVER = facts.HandedOver(MAC, IP, 52_000_000, 3.0)

ASKING: Story = ((0, discover()), (0.1, offer()), (4, discover(retry=1)), (4.1, offer()), (12, discover(retry=2)),
                 (12.1, offer()))  # fmt: skip
BEGUN: Story = ((0, discover()), (0.1, offer()), (1, ADDRESS), (1.5, REQUEST), (1.6, ANSWER))
LOADED: Story = (*BEGUN, (2, fetched(LOADER)))
SCRIPT: Story = (*LOADED, (4, discover("iPXE 2.0")), (5, script()))
KERNEL: Story = (*SCRIPT, (6, fetched("kernel", 12_000_000, "http")))

STORIES: dict[str, tuple[str, Story]] = {
    "declined": ("declined", ((0, discover()), (0.1, SILENT))),
    "not-armed": ("declined", ((0, discover()), (0.1, facts.Silent(MAC, "dhcp", NOT_ARMED, "UEFI x64")))),
    "undecided": ("silent", ((0, discover()), (4, discover(retry=1)))),
    "relay-drops": ("silent", tuple((at, discover(relay="10.9.0.1") if isinstance(fact, facts.Discovered) else fact)
                                    for at, fact in ASKING)),
    "no-dhcp-server": ("silent", ASKING),
    "offers-ignored": ("silent", ((0, discover(machine=OTHER)), (0, OTHERS_ADDRESS), *ASKING)),
    "asked-once": ("silent", ((0, discover()), (0.1, offer()))),
    "second-server": ("stuck", ((0, discover()), (0.1, offer()), (0.2, facts.RivalSeen(MAC, THEM, "proxy offer")),
                                (1, ADDRESS))),
    "lease-refused": ("stuck", (*ASKING[:2], (0.2, facts.DhcpHeard(MAC, THEM, "refusal")))),
    "offer-without-mask": ("stuck", (*ASKING[:2], (0.2, facts.DhcpHeard(MAC, THEM, "no subnet mask", IP)))),
    "vendor-class-alone": ("stuck", (*ASKING[:2], (0.2, facts.DhcpHeard(MAC, THEM, "vendor class alone", IP)),
                                     (1, ADDRESS))),
    "no-next-server": ("stuck", (*ASKING[:2], (0.2, facts.DhcpHeard(MAC, THEM, "no next server", IP)), (1, ADDRESS))),
    "proxy-ignored": ("stuck", ((0, discover("BIOS")), (0.1, offer()), (1, ADDRESS))),
    "pxe-request-lost": ("stuck", ((0, discover()), (0.1, offer()), (1, ADDRESS))),
    "loader-too-big": ("stuck", ((0, discover("BIOS")), (0.1, offer()), (1, ADDRESS),
                                 (2, facts.SizeProbed(MAC, "big.0", IP, 600_000)))),
    "http-wrong-type": ("stuck", ((0, discover("UEFI x64 over HTTP")), (0.1, offer()), (1, ADDRESS),
                                  (2, facts.SizeProbed(MAC, "files/boot", IP, 600_000, "http")))),
    "pxe-answer-lost": ("stuck", (*BEGUN, (2, REQUEST), (2.1, ANSWER), (4, REQUEST), (4.1, ANSWER))),
    "no-tftp-request": ("stuck", BEGUN),
    "tftp-replies-lost": ("stuck", (*BEGUN, (9, failed(LOADER, "never acknowledged")))),
    "big-blocks-lost": ("stuck", (*BEGUN,
        (2, facts.TransferStarted(MAC, "tftp", LOADER, IP, 300_000, "tsize 300000, blksize 1468")),
        (20, failed(LOADER, "no ACK of block 1 for 20 s")))),
    "tftp-broke-off": ("stuck", (*BEGUN, (20, failed(LOADER, "no ACK of block 9 for 20 s", 4_608)))),
    "tftp-client-refused": ("stuck", (*BEGUN, (3, failed(LOADER, "the client ended it: ERROR 3 disk full", 9)))),
    "file-missing": ("stuck", (*BEGUN, (2, facts.NotFound(MAC, "tftp", "pxelinux.0", IP, "no such file")))),
    "file-forbidden": ("stuck", (*BEGUN, (2, facts.NotFound(MAC, "tftp", "locked.0", IP, UNREADABLE)))),
    "loader-loop": ("stuck", (*BEGUN, *((2 + at, fact) for at in range(4)
                                        for fact in (fetched(LOADER), discover("iPXE 2.0"))))),
    "wrong-architecture": ("stuck", (*BEGUN, (2, fetched("bios/undionly.kpxe")))),
    "loader-refused": ("stuck", LOADED),
    "loader-no-network": ("stuck", (*LOADED, (3, script("autoexec.ipxe")))),
    "kernel-missing": ("stuck", (*SCRIPT, (6, facts.NotFound(MAC, "http", "kernel", IP, "no such file")))),
    "image-refused": ("stuck", (*SCRIPT, (6, facts.ImageRefused("", "https://a/vmlinuz", "its digest is another")))),
    "http-blocked": ("stuck", SCRIPT),
    "http-broke-off": ("stuck", (*SCRIPT, (9, failed("kernel", "the machine hung up", 5_000, "http")))),
    "initrd-missing": ("stuck", (*KERNEL, (7, facts.NotFound(MAC, "http", "initrd/0", IP, "no such file")))),
    "kernel-refused": ("stuck", KERNEL),
    "kernel-dies": ("stuck", (*KERNEL, (7, HANDED_OVER), (37, discover()))),
    "started-over": ("stuck", (*SCRIPT, (6, discover()))),
}  # fmt: skip


def judged(story: Story, wait: float = 100.0) -> list[Verdict]:
    """Every verdict on MAC's boots, when nothing more is heard for `wait` seconds."""
    boots, told = Boots(), []
    for second, fact in story:
        told += boots.take(Record(1e9 + second, EPOCH + round(second * 1e9), fact))
    told += boots.tick(EPOCH + round((story[-1][0] + wait) * 1e9))
    return [verdict for verdict in told if verdict.machine == MAC]


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_is_named_by_what_was_seen(cause: str) -> None:
    state, story = STORIES[cause]
    verdict = next(v for v in judged(story) if v.state != "booted")
    assert (verdict.cause, verdict.state) == (cause, state)
    assert "{" not in verdict.because + verdict.fix
    assert len(verdict.because) > 20
    assert verdict.fix


def test_every_rule_names_a_cause_and_every_story_is_one() -> None:
    assert {rule.cause for rule in RULES} <= set(CAUSES) == set(STORIES)


@pytest.mark.parametrize(("cause", "wait"), [("loader-refused", 20), ("http-blocked", 15), ("proxy-ignored", 8),
                                             ("kernel-refused", 25), ("asked-once", 30)])  # fmt: skip
def test_a_machine_that_is_only_slow_is_left_in_peace(cause: str, wait: float) -> None:
    assert judged(STORIES[cause][1], wait) == []


def test_a_dhcp_server_that_offers_is_there_though_nobody_took_an_address() -> None:
    (verdict,) = judged((*ASKING, (12.2, facts.DhcpHeard(MAC, THEM, "offer", IP))))
    assert verdict.cause == "offers-ignored"


def test_an_ipxe_in_the_card_that_has_our_offer_and_asks_for_no_script_is_kept_from_http() -> None:
    rom: Story = ((0, discover("iPXE 1.21 BIOS")), (0.1, facts.Offered(MAC, "ipxe", "http://x/", US, "lan", "")))
    causes = [judged((*rom, (1, facts.AddressSeen(MAC, IP, THEM, said))))[0].cause for said in ("yes", "no")]
    assert causes == ["http-blocked", "proxy-ignored"]


def test_a_loader_that_asked_dhcp_and_not_for_its_script_is_kept_from_http_unless_it_asks_on() -> None:
    story = (*LOADED, (3, script("autoexec.ipxe")), (4, discover("iPXE 2.0")), (4.1, offer()))
    more = ((5, discover("iPXE 2.0", retry=1)), (7, discover("iPXE 2.0", retry=2)))
    assert [judged(story)[0].cause, judged((*story, *more))[0].cause] == ["http-blocked", "loader-no-network"]


def test_each_machine_is_told_of_the_rival_that_it_followed() -> None:
    boots, told = Boots(), []
    third = "10.0.0.253"
    for machine, rivals, by in ((MAC, (third, THEM), THEM), (OTHER, (third,), THEM), ("02:00:00:00:00:03", (), THEM)):
        story = [(0, discover(machine=machine)), (0.1, replace(offer(), machine=machine))]
        story += [(0.2, facts.RivalSeen(machine, rival, "proxy offer")) for rival in rivals]
        for second, fact in [*story, (1, facts.AddressSeen(machine, f"10.0.0.{len(told) + 9}", by))]:
            told += boots.take(Record(1e9 + second, EPOCH + round(second * 1e9), fact))
    told += boots.tick(EPOCH + 60 * 10**9)
    said = {verdict.machine: (verdict.cause, verdict.because.split(" answers")[0]) for verdict in told}
    assert said[MAC] == ("second-server", THEM)
    assert said[OTHER] == ("second-server", third)
    assert said["02:00:00:00:00:03"][0] == "pxe-request-lost"


def test_a_machine_is_told_of_all_rivals_where_nobody_knows_which_it_followed_and_of_no_more_than_four() -> None:
    rivals = [(0.2, facts.RivalSeen(MAC, f"10.0.0.{25 + at}", "proxy offer")) for at in range(9)]
    (verdict,) = judged(((0, discover()), (0.1, offer()), *rivals, (1, ADDRESS)))
    assert verdict.because.startswith("10.0.0.25 or 10.0.0.26 or 10.0.0.27 or 10.0.0.28 answers")


def test_u_boot_may_ask_for_files_that_its_dhcp_server_names() -> None:
    alone = facts.Silent(MAC, "dhcp", "U-Boot takes its server from the network's own DHCP server", "U-Boot arm64")
    assert judged(((0, discover("U-Boot arm64")), (0.1, alone)), 20) == []


def test_with_dhcp_left_alone_what_a_machine_does_with_our_files_counts() -> None:
    alone = facts.Silent(MAC, "dhcp", "port 67 is left alone (--mode off)", "UEFI x64")
    began: Story = ((0, discover()), (0.1, alone), (1, ADDRESS))
    missing = (*began, (2, facts.NotFound(MAC, "http", "files/no.efi", IP, "no such file")))
    assert [judged(began, 20), judged(began, 60)[0].cause] == [[], "declined"]
    assert judged(missing)[0].cause == "file-missing"


@pytest.mark.parametrize(
    ("loader", "cause"), [(LOADER, "loader-refused"), ("bios/undionly.kpxe", "wrong-architecture")]
)
def test_a_firmware_that_asks_anew_once_it_has_its_loader_did_not_start_it(loader: str, cause: str) -> None:
    story: Story = (*BEGUN, (2, fetched(loader)), (4, discover()))
    assert judged(story, 0)[0].cause == cause


def test_a_script_that_fetches_the_kernel_again_could_not_start_it() -> None:
    again = fetched("kernel", 12_000_000, "http")
    told = judged((*KERNEL, (7, HANDED_OVER), (10, again)))
    assert [(verdict.state, verdict.cause) for verdict in told] == [("booted", ""), ("stuck", "kernel-refused")]
    told = judged((*KERNEL, (7, HANDED_OVER), (10, replace(again, peer="10.0.0.78"))))  # somebody else looks at it
    assert [verdict.state for verdict in told] == ["booted"]


def test_a_transfer_under_way_is_no_silence() -> None:
    story = (*SCRIPT, (6, facts.TransferStarted(MAC, "http", "initrd/0", IP, 10**9)))
    assert judged(story, 300) == []


def test_a_boot_that_hands_over_is_booted_at_once() -> None:
    (verdict,) = judged((*KERNEL, (7, HANDED_OVER)), 0)
    assert (verdict.state, verdict.stage, verdict.cause, verdict.octets) == ("booted", "hand-over", "", 12_300_000)


def test_a_loader_that_does_not_tell_has_booted_when_it_has_all_and_is_quiet() -> None:
    story = (*BEGUN, (2, fetched("pxelinux.0")), (3, fetched("vmlinuz")), (5, fetched("initrd.img")))
    (verdict,) = judged(story)
    assert verdict.state == "booted"


def test_a_boot_that_goes_on_after_all_gets_another_verdict() -> None:
    boots = Boots()
    for second, fact in LOADED:
        boots.take(Record(second, round(second * 1e9), fact))
    (stuck,) = boots.tick(60 * 10**9)
    boots.take(Record(60, 60 * 10**9, stuck))
    assert stuck.cause == "loader-refused"
    boots.take(Record(61, 61 * 10**9, script()))
    (boot,) = boots.all()
    assert boot.state == "running"
    assert [v.state for v in boots.take(Record(70, 70 * 10**9, HANDED_OVER))] == ["booted"]


def test_a_verdict_that_is_out_of_date_when_it_comes_back_changes_nothing() -> None:
    boots = Boots()
    for second, fact in LOADED:
        boots.take(Record(second, round(second * 1e9), fact))
    (stuck,) = boots.tick(60 * 10**9)
    boots.take(Record(61, 61 * 10**9, script()))
    boots.take(Record(60, 62 * 10**9, stuck))
    assert boots.all()[0].state == "running"


def test_the_screen_is_told_for_the_firmware_in_question() -> None:
    bios = tuple((at, discover("BIOS") if isinstance(fact, facts.Discovered) else fact) for at, fact in ASKING)
    assert judged(ASKING)[0].screen.startswith("PXE-E18")
    assert judged(bios)[0].screen.startswith("PXE-E52")


def test_hostile_text_in_a_fact_stays_text() -> None:
    story = ((0, discover()), (0.1, facts.Silent(MAC, "dhcp", "{discovers} {0} %s {x.__class__}", "UEFI x64")))
    (verdict,) = judged(story)
    assert "{discovers} {0} %s {x.__class__}" in verdict.because


def test_the_page_lists_every_cause_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs/concepts/verdicts.md").read_text()
    for cause in CAUSES.values():
        screens = " | ".join(f"{text or '-'}" for text in (cause.bios, cause.uefi))
        assert f"| `{cause.id}` | {cause.because} | {screens} |" in page
