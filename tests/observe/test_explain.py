"""Captures explained: each signature from a capture that shows it, the story, JSON, hostile files."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from bootwire.cli import main
from bootwire.observe import explain
from bootwire.observe.explain import signatures, story
from bootwire.observe.explain.causes import CAUSES
from bootwire.wire import dhcp4, dhcp6, ip6, pcap, tcp, tftp
from bootwire.wire.reader import WireError
from capture_maker import (
    ADDRESS6,
    ASKED6,
    BIOS,
    ELAPSED6,
    EVERYONE,
    FILE6,
    HERE,
    HTTP,
    IPXE,
    MASK,
    NO_ADDRESS6,
    NO_ADDRESSES6,
    NOBODY,
    OWN,
    OWN6,
    PROXY,
    PXE,
    SERVER,
    SERVER_DUID,
    UEFI,
    Capture,
    pe,
)  # fmt: skip

DIRECT = (43, b"\x06\x01\x08\xff")
RELAY = "198.51.100.1"


def relayed(*, proxied: bool) -> Capture:
    made = Capture().discover(1, giaddr=RELAY)
    made.offer(giaddr=RELAY, to=(RELAY, 67))
    if proxied:
        made.proxy(giaddr=RELAY, to=(RELAY, 67)).discover(2, giaddr=RELAY)
    return made


def late() -> Capture:
    made = Capture().discover(wait=0.1).offer().request()
    return made.reply(dhcp4.ACK, MASK, HERE).proxy(wait=1.0).quiet()


def ignored() -> Capture:
    made = Capture()
    for _ in range(4):
        made.discover().offer().proxy()
    return made


def storm() -> Capture:
    made = Capture().booted().rrq(b"snponly.efi")
    for block in range(1, 12):
        made.serve(tftp.Data(block, b"x" * 512)).serve(tftp.Data(block, b"x" * 512))
        made.say(tftp.Ack(block)).say(tftp.Ack(block))
    return made


def stuck_block() -> Capture:
    made = Capture().booted().rrq(b"snponly.efi", blksize=1468).oack(blksize=1468).say(tftp.Ack(0))
    for _ in range(4):
        made.serve(tftp.Data(1, b"x" * 1468), wait=1.0)
    return made


def broken_off() -> Capture:
    made = Capture().booted().rrq(b"snponly.efi")
    for block in (1, 2, 3):
        made.serve(tftp.Data(block, b"x" * 512)).say(tftp.Ack(block))
    return made.quiet()


def wrapped() -> Capture:
    made = Capture().booted().rrq(b"big.efi", blksize=8).oack(blksize=8).say(tftp.Ack(0))
    for block in range(1, 65_536):
        made.serve(tftp.Data(block, b"x" * 8), wait=0.0)
    return made.quiet()


def looping() -> Capture:
    made = Capture().booted()
    ipxe = Capture(IPXE).asked
    for turn in range(3):
        made.file(b"snponly.efi", 2000 + turn)
        made.asked = replace(ipxe, chaddr=made.asked.chaddr)
        made.discover(wait=0.2).offer().proxy()
    return made


def fragmented() -> Capture:
    made = Capture().booted().rrq(b"snponly.efi", blksize=4096).oack(blksize=4096)
    for number in (1, 2, 3):
        made.packet(PROXY, OWN, 17, b"x" * 1480, identification=number, flags=1)
    return made


def booted6(*offered: tuple[int, bytes], relay: bytes = b"") -> Capture:
    """An address over IPv6, and what else the server has."""
    made = Capture().solicit(relay=relay).dhcp6(dhcp6.ADVERTISE, SERVER_DUID, ADDRESS6, *offered, relay=relay)
    made.dhcp6(dhcp6.REQUEST, SERVER_DUID, ADDRESS6, *ASKED6, xid=8, relay=relay)
    return made.dhcp6(dhcp6.REPLY, SERVER_DUID, ADDRESS6, *offered, xid=8, relay=relay)


def given_back(seconds: float) -> Capture:
    """As EDK2 says it of an address that it cannot configure, or some time later, as after a probe."""
    made = Capture().booted()
    options = ((53, b"\4"), HERE, (50, bytes((192, 0, 2, 57))), (56, b"Lease is denied upon entering bound"))
    return made.udp((NOBODY, 68), (EVERYONE, 67), dhcp4.emit(replace(made.asked, options=options)), seconds)


def asked_of_4011(*, answered: bool, port: int = 4011) -> Capture:
    made = Capture().booted()
    for _ in range(4):
        made.request(4011, PROXY, wait=1.0)
        if answered:
            made.reply(dhcp4.ACK, who=PROXY, port=port, to=(OWN, 4011), file=b"snponly.efi", siaddr=PROXY)
    return made


def ok(body: bytes = b"12345", more: bytes = b"", length: int | None = 5) -> bytes:
    head = b"HTTP/1.1 200 OK\r\n" + more + (b"" if length is None else b"Content-Length: %d\r\n" % length)
    return head + b"\r\n" + body


NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
UEFI_AGENT = b"UefiHttpBoot/1.0"
OTHER = (54, bytes((192, 0, 2, 99)))

SHOWN = {
    "nothing-answers": lambda: Capture().discover(4),
    "no-boot-server": lambda: Capture().lease(),
    "no-dhcp-server": lambda: Capture().discover().proxy().discover().proxy(),
    "second-server": lambda: Capture().discover().offer().proxy().reply(2, OTHER, PXE, who="192.0.2.99", yiaddr=NOBODY),
    "vendor-class-alone": lambda: Capture().lease(PXE),
    "offers-ignored": ignored,
    "proxy-ignored": lambda: Capture().booted().quiet(),
    "proxy-late": late,
    "bad-offer": lambda: Capture().discover().offer(cut=1),
    "offer-without-mask": lambda: Capture().discover().reply(dhcp4.OFFER, HERE),
    "offer-without-server": lambda: Capture().discover().reply(dhcp4.OFFER, MASK),
    "menu-broken": lambda: Capture().discover().offer().proxy((43, b"\x06\x01\x00\xff")),
    "pxe-unanswered": lambda: asked_of_4011(answered=False),
    "pxe-answer-lost": lambda: asked_of_4011(answered=True),
    "pxe-wrong-port": lambda: asked_of_4011(answered=True, port=67),
    "relay-drops": lambda: relayed(proxied=True),
    "relay-not-to-us": lambda: relayed(proxied=False),
    "lease-refused": lambda: Capture().discover().offer().request().reply(dhcp4.NAK, HERE, yiaddr=NOBODY),
    "duplicate-address": lambda: Capture().booted().arp(b"\2" * 6, OWN, OWN).arp(b"\4" * 6, OWN, OWN),
    "address-declined": lambda: given_back(0.001),
    "ipv6-refused": lambda: Capture().solicit().dhcp6(2, SERVER_DUID, NO_ADDRESSES6).solicit(),
    "ipv6-no-file": lambda: booted6(),
    "dhcp-file-wins": lambda: Capture(IPXE).discover().offer(file=b"old.0", siaddr=SERVER).proxy(),
    "no-next-server": lambda: Capture().discover().offer(file=b"snponly.efi"),
    "ipxe-without-features": lambda: Capture("ipxe-crippled-discover").discover(),
    "loader-loop": looping,
    "wrong-architecture": lambda: Capture().booted().file(b"loader.efi", first=pe(0xAA64)).quiet(),
    "loader-refused": lambda: Capture().booted().file(b"snponly.efi", first=pe(0x8664)).discover(),
    "shim-refused": lambda: Capture().booted().file(b"mmx64.efi"),
    "file-missing": lambda: Capture().booted().rrq(b"lost.efi").serve(tftp.Error(1, b"File not found")),
    "file-forbidden": lambda: Capture().booted().rrq(b"/secret").serve(tftp.Error(2, b"Access violation")),
    "tftp-server-error": lambda: Capture().booted().rrq(b"snponly.efi").serve(tftp.Error(0, b"disk is gone")),
    "name-garbage": lambda: Capture(BIOS).booted().rrq(b"undionly.kpxe\xff"),
    "tftp-replies-lost": lambda: Capture().booted().rrq(b"snponly.efi").rrq(b"snponly.efi", wait=4.0),
    "tftp-not-heard": lambda: (
        Capture().booted().rrq(b"a.efi", tsize=0).oack(tsize=9).rrq(b"a.efi", tsize=0).oack(tsize=9)
        .rrq(b"a.efi", tsize=0)
    ),
    "big-blocks-lost": stuck_block,
    "fragments-lost": fragmented,
    "needs-fragmenting": lambda: Capture().booted().icmp(4, 69, 1400),
    "ack-storm": storm,
    "tftp-broke-off": broken_off,
    "block-wrap": wrapped,
    "tsize-missing": lambda: Capture().booted().rrq(b"a.efi", tsize=0, blksize=1468).oack(blksize=1468),
    "options-exceeded": lambda: Capture().booted().rrq(b"a.efi", blksize=512).oack(blksize=1468),
    "tftp-client-refused": lambda: (
        Capture(BIOS).booted().rrq(b"big.kpxe").serve(tftp.Data(1, b"x" * 512)).say(tftp.Ack(1))
        .say(tftp.Error(3, b"full"))
    ),
    "size-probe": lambda: Capture().booted().rrq(b"a.efi", tsize=0).oack(tsize=9).say(tftp.Error(8, b"User aborted")),
    "loader-too-big": lambda: (
        Capture(BIOS).booted().rrq(b"a.0", tsize=0).oack(tsize=600_000).say(tftp.Error(0, b"TFTP Aborted"))
    ),
    "kernel-refused": lambda: (
        Capture(IPXE).booted().http(b"GET /vmlinuz", ok()).http(b"GET /vmlinuz", ok()).http(b"GET /vmlinuz", ok())
    ),
    "script-missing": lambda: Capture(IPXE).booted().http(b"GET /boot.ipxe", NOT_FOUND),
    "kernel-missing": lambda: Capture(IPXE).booted().http(b"GET /vmlinuz", NOT_FOUND),
    "initrd-missing": lambda: Capture(IPXE).booted().http(b"GET /initrd.gz", NOT_FOUND),
    "http-missing": lambda: Capture(IPXE).booted().http(b"GET /other", NOT_FOUND),
    "http-error": lambda: Capture(IPXE).booted().http(b"GET /x", b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"),
    "http-redirect": lambda: Capture(HTTP).booted().http(
        b"GET /a.efi", b"HTTP/1.1 301 Moved\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n", UEFI_AGENT
    ),
    "http-wrong-type": lambda: Capture(HTTP).booted().http(
        b"GET /boot", ok(more=b"Content-Type: text/html\r\n"), UEFI_AGENT
    ),
    "http-no-length": lambda: Capture(HTTP).booted().http(b"GET /a.efi", ok(length=None), UEFI_AGENT),
    "http-broke-off": lambda: Capture(IPXE).booted().http(b"GET /vmlinuz", ok(length=50_000)).quiet(),
    "http-damaged": lambda: Capture(IPXE).booted().http(b"GET /vmlinuz", b"SSH-2.0-x\r\n\r\n"),
    "http-blocked": lambda: Capture(IPXE).booted().tcp(True, tcp.SYN, 1).tcp(True, tcp.SYN, 1, wait=1.0),
    "http-refused": lambda: Capture(IPXE).booted().tcp(True, tcp.SYN, 1).tcp(False, tcp.RST | tcp.ACK, 0),
    "no-uri": lambda: Capture(HTTP).discover().offer(file=b"snponly.efi", siaddr=SERVER),
    "dns-failing": lambda: Capture(IPXE).booted().dns(3),
    "dns-unanswered": lambda: Capture(IPXE).booted().dns(None).quiet(2.0),
    "port-closed": lambda: Capture().booted().icmp(3, 69),
    "no-route": lambda: Capture().booted().icmp(1, 69),
    "prohibited": lambda: Capture().booted().icmp(13, 69),
    "no-router": lambda: Capture().discover().offer().proxy(siaddr="198.51.100.9").request().reply(5, MASK, HERE),
    "arp-unanswered": lambda: [c := Capture().booted(), *[c.arp(c.mac, OWN, "192.0.2.77") for _ in range(3)]][0],
    "answer-too-big": lambda: Capture().discover().offer(*[(code, b"x" * 250) for code in range(224, 232)]),
    "capture-cut": lambda: cut(),
    "capture-damaged": lambda: Capture().discover(),
    "bad-dhcp": lambda: Capture().udp((SERVER, 67), (EVERYONE, 68), b"\2\1\6\0" + bytes(300)),
    "arch-disagrees": lambda: disagreeing(),
}  # fmt: skip


def cut() -> Capture:
    made = Capture().booted().file(b"snponly.efi")
    made.packets[-2] = replace(made.packets[-2], data=made.packets[-2].data[:-1])
    return made


def disagreeing() -> Capture:
    made = Capture()
    options = tuple((c, b"PXEClient:Arch:00000:UNDI:003000" if c == 60 else v) for c, v in made.asked.options)
    made.asked = replace(made.asked, options=options)
    return made.discover()


def test_every_cause_has_a_capture() -> None:
    assert set(SHOWN) == set(CAUSES)
    assert len(CAUSES) >= 30


@pytest.mark.parametrize("cause", [name for name in SHOWN if name != "capture-damaged"])
def test_a_capture_that_shows_it(cause: str) -> None:
    found = SHOWN[cause]().causes()
    assert cause in found, sorted(found)
    assert "{" not in found[cause].because + found[cause].fix


def test_a_file_cut_in_the_middle_is_explained_up_to_there() -> None:
    octets = Capture().discover(3).octets()
    capture = explain.gathered(pcap.read([octets[:-100]]))
    assert capture.packets == 2
    assert "capture-damaged" in {one.cause for one in signatures.findings(capture)}


@pytest.mark.parametrize("kind", [UEFI, BIOS])
def test_nothing_is_found_in_a_boot_that_works(kind: str) -> None:
    made = Capture(kind).discover(wait=0.1).offer().proxy(*([DIRECT] if kind == BIOS else []))
    made.request().reply(dhcp4.ACK, MASK, HERE)
    if kind == UEFI:
        made.request(4011, PROXY).reply(
            dhcp4.ACK, who=PROXY, port=4011, to=(OWN, 4011), file=b"snponly.efi", siaddr=PROXY
        )
    made.file(b"snponly.efi" if kind == UEFI else b"undionly.kpxe", first=pe(0x8664) if kind == UEFI else b"x" * 512)
    made.asked = replace(Capture(IPXE).asked, chaddr=made.asked.chaddr)
    made.booted().http(b"GET /boot.ipxe", ok())
    assert made.causes() == {}


def test_a_capture_that_ends_with_a_question_is_no_proof_that_nobody_answers() -> None:
    assert Capture().discover().causes() == {}
    assert "tftp-replies-lost" not in Capture().booted().rrq(b"snponly.efi").causes()


def test_a_capture_without_the_answers_ports_is_no_proof_either() -> None:
    made = Capture().booted().rrq(b"snponly.efi")
    made.asked = replace(Capture(IPXE).asked, chaddr=made.asked.chaddr)
    assert "tftp-replies-lost" not in made.booted().quiet().causes()


def test_blocks_that_the_card_cuts_apart_later_are_counted_one_by_one() -> None:
    made = Capture().booted().rrq(b"a.efi", blksize=1468).oack(blksize=1468).say(tftp.Ack(0))
    blocks = [tftp.emit(tftp.Data(1, b"x" * 1468)), tftp.emit(tftp.Data(2, b"x" * 100))]
    made.udp((PROXY, 3000), (OWN, 2000), b"".join(blocks)).say(tftp.Ack(2))
    (machine,) = explain.gathered(pcap.read([made.octets()])).machines.values()
    (transfer,) = machine.transfers
    assert (transfer.octets, transfer.complete) == (1568, True)


def test_a_declined_address_is_another_host_s_only_where_somebody_could_be_asked() -> None:
    assert set(given_back(0.001).causes()) == {"address-declined"}
    found = given_back(1.5).causes()
    assert set(found) == {"duplicate-address"}
    assert "192.0.2.57 is claimed by somebody else" in found["duplicate-address"].because


def test_the_story_counts_what_is_asked_again_and_gives_the_reasons_that_are_given() -> None:
    capture = explain.gathered(pcap.read([asked_of_4011(answered=False).octets()]))
    told = [one.text for machine in capture.machines.values() for one in story.story(machine)]
    asked = "It asks 192.0.2.10 on port 4011 for its boot file"
    assert told[-4:] == [f"{asked}.", f"{asked} again (2).", f"{asked} again (3).", f"{asked} again (4)."]
    made = given_back(0.001).reply(dhcp4.NAK, HERE, (56, b"wrong network"), yiaddr=NOBODY).rrq(b"")
    capture = explain.gathered(pcap.read([made.octets()]))
    told = [one.text for machine in capture.machines.values() for one in story.story(machine)]
    assert told[-3:] == [
        "It declines its address: Lease is denied upon entering bound.",
        "192.0.2.1 refuses (NAK: wrong network).",
        "It asks 192.0.2.10 for a file without a name over TFTP: no answer.",
    ]


def test_a_capture_out_of_order_or_without_times_has_no_negative_ones(tmp_path: Path) -> None:
    made = Capture().booted().file(b"snponly.efi")
    made.packets.insert(0, replace(made.packets[-1], at=made.packets[-1].at + 400 * 86_400 * 10**9))
    made.packets.append(replace(made.packets[1], at=made.packets[1].at - 10**9))
    (tmp_path / "a.pcap").write_bytes(made.octets())
    run = CliRunner().invoke(main, ["explain", str(tmp_path / "a.pcap")])
    assert "packets in 400 days" in run.output
    assert "\n    0.000  UEFI x64 asks who is there" in run.output
    assert not any(line.startswith("-") for line in run.output.splitlines())
    capture = explain.gathered([made.packets[2], replace(made.packets[3], at=0)])
    assert capture.ended == made.packets[2].at


@pytest.mark.parametrize("relay", [b"", ip6.octets("2001:db8:7::1")])
def test_a_boot_over_ipv6_is_told(relay: bytes) -> None:
    made = booted6(FILE6, relay=relay)
    assert made.causes() == {}
    (machine,) = explain.gathered(pcap.read([made.octets()])).machines.values()
    assert machine.mac == "52:54:00:12:34:56"
    assert list(machine.addresses) == [OWN6]
    through = ", through relay 2001:db8:7::1" if relay else ""
    offered = "the address 2001:db8::57 and the file tftp://[2001:db8::1]/snponly.efi"
    server = "2001:db8::1"
    assert [one.text for one in story.story(machine)] == [
        f"UEFI x64 asks over IPv6 who is there{through}.",
        f"{server} offers {offered}.",
        f"It asks for 2001:db8::57{through}.",
        f"{server} gives it {offered}.",
    ]


def test_what_else_is_said_over_ipv6_is_told(tmp_path: Path) -> None:
    made = Capture().solicit().solicit().dhcp6(dhcp6.ADVERTISE, SERVER_DUID, NO_ADDRESSES6)
    made.dhcp6(dhcp6.INFORMATION_REQUEST, ELAPSED6, xid=1).dhcp6(dhcp6.REPLY, SERVER_DUID, xid=1)
    made.dhcp6(dhcp6.RENEW, SERVER_DUID, ADDRESS6).dhcp6(dhcp6.DECLINE, ADDRESS6).dhcp6(dhcp6.RELEASE, ADDRESS6)
    (tmp_path / "a.pcap").write_bytes(made.dhcp6(99).octets())
    run = CliRunner().invoke(main, ["explain", str(tmp_path / "a.pcap"), "--json"])
    (machine,) = json.loads(run.stdout)["machines"]
    assert machine["firmware"] == "UEFI x64"
    assert [one["text"] for one in machine["story"]] == [
        "UEFI x64 asks over IPv6 who is there.",
        "UEFI x64 asks over IPv6 who is there again (2).",
        "2001:db8::1 refuses (NoAddrsAvail: no addresses available).",
        "It asks for settings over IPv6, not for an address.",
        "2001:db8::1 gives it settings, and neither address nor file.",
        "It asks to keep 2001:db8::57 (RENEW).",
        "It declines 2001:db8::57: somebody else has it.",
        "It gives 2001:db8::57 back.",
        "It sends DHCPv6 message type 99.",
    ]


@pytest.mark.parametrize(("options", "who"), [
    (ASKED6, "UEFI x64"),
    ((*ASKED6, (dhcp6.USER_CLASS, b"\0\4iPXE")), "iPXE UEFI x64"),
    ((ASKED6[0], (dhcp6.USER_CLASS, b"\0\4iPXE")), "iPXE"),
    (ASKED6[:1], "firmware without an architecture"),
    (((dhcp6.ARCHITECTURE, b"\0\x63"),), "architecture 99"),
])  # fmt: skip
def test_who_asks_over_ipv6(options: tuple[tuple[int, bytes], ...], who: str) -> None:
    made = Capture().dhcp6(dhcp6.SOLICIT, ELAPSED6, NO_ADDRESS6, *options)
    (machine,) = explain.gathered(pcap.read([made.octets()])).machines.values()
    assert machine.boots
    assert [one.text for one in story.story(machine)] == [f"{who} asks over IPv6 who is there."]


def test_a_transfer_that_is_ended_says_by_whom_and_how_far_it_came() -> None:
    made = Capture().booted().rrq(b"a.efi").serve(tftp.Data(1, b"x" * 512)).say(tftp.Ack(1))
    made.serve(tftp.Error(0, b"disk is gone.")).rrq(b"b.efi", 2001).serve(tftp.Error(1, b"no such file"), 2001)
    (machine,) = explain.gathered(pcap.read([made.octets()])).machines.values()
    assert [one.text for one in story.story(machine)][-2:] == [
        "It asks 192.0.2.10 for a.efi over TFTP: the server ends it after 512 octets: disk is gone.",
        "It asks 192.0.2.10 for b.efi over TFTP: the server refuses: no such file.",
    ]


def test_hosts_that_only_take_an_ipv6_address_do_not_netboot() -> None:
    made = Capture().dhcp6(dhcp6.SOLICIT, ELAPSED6, NO_ADDRESS6).dhcp6(dhcp6.ADVERTISE, SERVER_DUID, NO_ADDRESSES6)
    assert made.causes() == {}


def test_the_story_says_why_edk2_went_to_port_4011() -> None:
    capture = explain.gathered(pcap.read([asked_of_4011(answered=True).octets()]))
    (machine,) = capture.machines.values()
    told = " ".join(one.text for one in story.story(machine))
    assert "UEFI x64 asks who is there." in told
    assert "192.0.2.10 offers as a proxy, the file snponly.efi." in told
    assert "It goes on to 192.0.2.10, port 4011 (EDK2's class DhcpOnly with ProxyBinl" in told


def test_the_page_is_80_columns_wide_and_ends_with_what_to_change(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(ignored().octets())
    for more in ([], ["-v"]):
        run = CliRunner().invoke(main, ["explain", str(path), *more])
        assert run.exit_code == 4, run.output
        assert max(map(len, run.output.splitlines())) <= 80
        assert "offers-ignored" in run.output
        assert "Change: Name the boot server" in run.output
        assert "Bootwire would have offered" in run.output


def test_json_holds_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(stuck_block().octets())
    run = CliRunner().invoke(main, ["explain", str(path), "--json"])
    document = json.loads(run.output)
    assert [one["cause"] for one in document["findings"] if one["severity"] == "error"] == ["big-blocks-lost"]
    assert document["machines"][0]["transfers"][0]["agreed"] == {"blksize": "1468"}


def test_stdin_and_the_machine_that_was_asked_for() -> None:
    run = CliRunner().invoke(main, ["explain", "-", "--machine", "00:00:00"], input=ignored().octets())
    assert run.exit_code == 0
    assert "Nothing is wrong" in run.output


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["/nonexistent"], 1), (["-i", "nosuch"], 2)])
def test_what_cannot_be_read_is_one_clear_line(arguments: list[str], status: int) -> None:
    run = CliRunner().invoke(main, ["explain", *arguments])
    assert run.exit_code == status
    assert "error: " in run.output


def test_10000_hostile_captures_raise_nothing_and_end() -> None:
    draw = random.Random(8)
    seeds = [SHOWN[name]().octets() for name in sorted(SHOWN) if name != "block-wrap"]
    began = time.perf_counter()
    for _ in range(10_000):
        octets = bytearray(draw.choice(seeds)[: draw.randrange(24, 6_000)])
        for _ in range(draw.randrange(1, 8)):
            octets[draw.randrange(draw.choice((24, len(octets))))] = draw.randrange(256)
        try:
            capture = explain.gathered(pcap.read([bytes(octets)]))
        except WireError:
            continue
        signatures.findings(capture)
        for machine in capture.machines.values():
            assert all(one.text.isprintable() for one in story.story(machine))
    assert time.perf_counter() - began < 120
