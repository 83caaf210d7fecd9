"""Wireshark's dissectors beside `bootwire explain`: every field of DHCP, TFTP and HTTP, on every link and format."""

from __future__ import annotations

import subprocess
from pathlib import Path

import explain_against_tshark as oracle
import pytest

from bootwire.observe import explain, options
from bootwire.wire import dhcp4, dhcp6, ethernet, ip6, pcap, tftp
from capture_maker import (
    ADDRESS6,
    ASKED6,
    BEGAN,
    BIOS,
    FILE6,
    HTTP,
    IPXE,
    NO_ADDRESSES6,
    SERVER_DUID,
    UEFI,
    Capture,
)  # fmt: skip

pytestmark = pytest.mark.interop

KINDS = (UEFI, BIOS, IPXE, HTTP, "edk2-arm64-discover", "intel-bios-no-machine-id-discover", "raspberry-pi4-discover")


def dissected(path: Path, shown: str, *fields: str) -> list[list[str]]:
    """The fields of the packets that `shown` selects; several values of one are joined with |."""
    command = ["tshark", "-n", "-r", str(path), "-Y", shown, "-T", "fields", "-E", "aggregator=|"]
    command += [word for field in fields for word in ("-e", field)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return [line.split("\t") for line in out.splitlines()]


def written(made: Capture, path: Path) -> explain.Capture:
    path.write_bytes(made.octets())
    return explain.gathered(pcap.read([made.octets()]))


@pytest.mark.parametrize("kind", KINDS)
def test_dhcp_messages_have_the_same_fields(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    made = Capture(kind).booted()
    said = [one for machine in written(made, path).machines.values() for one in machine.said]
    rows = dissected(
        path, "dhcp", "dhcp.option.dhcp", "dhcp.id", "dhcp.ip.your", "dhcp.ip.server", "dhcp.file", "dhcp.option.type",
    )  # fmt: skip
    ours = [
        [
            str(one.message.type),
            f"0x{one.message.xid:08x}",
            one.message.yiaddr,
            one.message.siaddr,
            one.message.file.decode(),
            sorted(code for code, _ in one.message.options),
        ]
        for one in said
    ]
    theirs = [[*row[:5], sorted(int(code) for code in row[5].split("|") if code not in ("0", "255"))] for row in rows]
    assert ours == theirs


def test_tftp_transfers_have_the_same_names_options_and_sizes(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    made = Capture().booted().rrq(b"x86_64/snponly.efi", tsize=0, blksize=1468).oack(tsize=9, blksize=1468)
    made.file(b"other.efi", 2001)
    capture = written(made, path)
    (machine,) = capture.machines.values()
    rows = dissected(path, "tftp.opcode == 1", "tftp.source_file", "tftp.option.name", "tftp.option.value")
    ours = [[one.name, "|".join(one.asked), "|".join(one.asked.values())] for one in machine.transfers]
    assert ours == [[*row, "", ""][:3] for row in rows]
    sizes = dissected(path, "tftp.opcode == 3", "data.len", "tftp.block")
    assert sum(int(size) for size, _ in sizes if size) == machine.transfers[1].octets


def test_http_requests_have_the_same_paths_and_statuses(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    (machine,) = written(Capture(IPXE).booted().http(b"GET /a%20b?x=1", answer), path).machines.values()
    assert dissected(path, "http.request", "http.request.method") == [[one.method] for one in machine.exchanges]
    assert dissected(path, "http.response", "http.response.code") == [[str(one.status)] for one in machine.exchanges]
    assert machine.exchanges[0].path == "/a b"


def test_a_pcapng_of_wireshark_s_own_says_the_same(tmp_path: Path) -> None:
    made = Capture().booted().file(b"snponly.efi")
    (tmp_path / "a.pcap").write_bytes(made.octets())
    command = ["editcap", "-F", "pcapng", str(tmp_path / "a.pcap"), str(tmp_path / "a.pcapng")]
    subprocess.run(command, check=True, timeout=60)
    one = explain.gathered(pcap.read([(tmp_path / "a.pcapng").read_bytes()]))
    (machine,) = one.machines.values()
    assert [said.message.type for said in machine.said] == [
        dhcp4.DISCOVER, dhcp4.OFFER, dhcp4.OFFER, dhcp4.REQUEST_LEASE, dhcp4.ACK,
    ]  # fmt: skip
    assert machine.transfers[0].complete


# --- field by field ---------------------------------------------------------------------------------------------------

MENU = dhcp4.Pxe(
    control=3, multicast="224.0.1.2", servers=((0x8000, ("192.0.2.16", "192.0.2.17")), (1, ())),
    menu=((0x8000, b"Boot net"), (0, b"Local")), prompt=(10, b"Press F8"),
)  # fmt: skip
ADDRESSES = bytes((192, 0, 2, 1, 192, 0, 2, 2))
SPEAKING: tuple[tuple[int, bytes], ...] = (
    *((code, ADDRESSES) for code in (3, 4, 5, 6, 7, 33, 41, 42, 44, 69, 72, 150)),
    *((code, ADDRESSES[:4]) for code in (1, 28, 50, 118)),
    *((code, b"some.text") for code in (12, 15, 17, 18, 40, 47, 56, 66, 67, 209, 210, 252)),
    (2, (-3600 & 0xFFFFFFFF).to_bytes(4, "big")), (13, b"\1\0"), (23, b"\x40"), (26, b"\5\xdc"), (46, b"\x08"),
    (51, b"\0\1\x51\x80"), (55, bytes((1, 3, 6, 66, 67, 175))), (57, b"\5\xc0"), (58, b"\0\0\xa8\xc0"),
    (59, b"\0\1\x27\x50"), (116, b"\1"), (119, b"\3lab\7example\0\3sub\xc0\4"),
    (61, b"\1\x52\x54\0\x12\x34\x56"), (61, bytes.fromhex("0033221100554477668899aabbccddeeff")), (77, b"iPXE"),
    (77, b"\4aaaa\2bb"), (82, b"\1\4eth0\2\6\0\1\2\3\4\5\5\4\xc0\0\2\0\x0b\4\xc0\0\2\1\x13\0"),
    (82, b"\1\4eth0\x96\4\xc0\0\2\0\x98\4\xc0\0\2\1"), (93, b"\0\7"), (93, b"\0\0\0\x0b\0\x10"),
    (94, b"\1\3\x10"), (97, bytes.fromhex("0033221100554477668899aabbccddeeff")), (43, b"\6\1\x08\xff"),
    (43, dhcp4.emit_pxe(MENU)), (43, dhcp4.emit_pxe(dhcp4.Pxe(prompt=(0, b"PXE"), item=(0x8001, 2)))),
    (43, dhcp4.emit_pxe(dhcp4.Pxe(prompt=(255, b"x"), control=0))), (121, b""), (175, b"\x13\1\1"),
)  # fmt: skip
"""One reply with each: codes that explain names, in every shape it knows."""


def agreed(path: Path, **least: int) -> oracle.Report:
    """The comparison of a capture that must be without a difference, and must have compared something."""
    report = oracle.compare(path)
    assert report.differences == []
    assert report.notes == []
    assert {what: report.compared[what] for what in least if report.compared[what] < least[what]} == {}
    return report


def test_every_option_that_explain_reads_has_tshark_s_value(tmp_path: Path) -> None:
    made = Capture().discover(wait=0.1)
    for code, value in SPEAKING:
        made.proxy(*([(code, value)] if value else []))
    (tmp_path / "a.pcap").write_bytes(made.octets())
    read = {code for code, _ in SPEAKING} & set(oracle.EXPECTED)
    assert set(oracle.EXPECTED) - read == {53, 54, 60}  # in every reply
    agreed(tmp_path / "a.pcap", value=4 * len(SPEAKING) - 2)


def test_classless_routes_are_tshark_s(tmp_path: Path) -> None:
    routes = bytes.fromhex("080ac000020118c00003c000020200c00002031fcb007108c0000204")
    made = Capture().discover(wait=0.1).proxy((121, routes), (249, routes))
    (tmp_path / "a.pcap").write_bytes(made.octets())
    text = oracle.tshark(tmp_path / "a.pcap", "-Y", "dhcp.option.dhcp == 2", "-O", "dhcp")
    theirs = [line.strip() for line in text.splitlines() if "-192.0.2." in line]
    ours = [options.value_text(code, routes).replace("0.0.0.0/0", "default").split(", ") for code in (121, 249)]
    assert [one.replace(" via ", "-") for part in ours for one in part] == theirs


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_each_client_is_tshark_s(kind: str, tmp_path: Path) -> None:
    made = Capture(kind).booted().request(4011, "192.0.2.10")
    (tmp_path / "a.pcap").write_bytes(made.octets())
    agreed(tmp_path / "a.pcap", header=80, octets=25, value=20)


def transfers() -> Capture:
    """Reads with and without options, a refusal, a client's end, a name that is asked for again, blocks twice."""
    made = Capture().booted().rrq(b"a.efi", tsize=0, blksize=1468, windowsize=4).oack(tsize=1500, blksize=1468)
    made.say(tftp.Ack(0)).serve(tftp.Data(1, b"x" * 1468)).serve(tftp.Data(1, b"x" * 1468)).say(tftp.Ack(1))
    made.serve(tftp.Data(2, b"y" * 32)).say(tftp.Ack(2))
    made.file(b"dir/two words.cfg", 2001).rrq(b"missing", 2002).serve(tftp.Error(1, b"no " + b"x" * 200), 2002)
    made.rrq(b"probe", 2003, tsize=0).oack(2003, tsize=9).say(tftp.Error(8, b"User aborted the transfer"), 2003)
    return made.rrq(b"late", 2004).rrq(b"late", 2004, wait=4.0).serve(tftp.Data(1, b"z"), 2004).say(tftp.Ack(1), 2004)


def test_every_transfer_is_tshark_s(tmp_path: Path) -> None:
    (tmp_path / "a.pcap").write_bytes(transfers().octets())
    agreed(tmp_path / "a.pcap", name=5, asked=5, agreed=5, blocks=5, error=5)


@pytest.mark.parametrize(("request_line", "response"), [
    (b"GET /boot.ipxe", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n#!ip"),
    (b"HEAD /initrd", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
    (b"GET /gone", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    (b"POST /report", b"HTTP/1.1 204 No Content\r\n\r\n"),
])  # fmt: skip
def test_every_request_is_tshark_s(request_line: bytes, response: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pcap").write_bytes(Capture(IPXE).booted().http(request_line, response).octets())
    agreed(tmp_path / "a.pcap", requests=1, statuses=1)


@pytest.mark.parametrize("relay", [b"", ip6.octets("2001:db8:7::1")])
def test_every_field_of_dhcpv6_is_tshark_s(relay: bytes, tmp_path: Path) -> None:
    names = (dhcp6.DNS, ip6.octets("2001:db8::53") + ip6.octets("2001:db8::54"))
    made = Capture().solicit(relay=relay)
    made.dhcp6(dhcp6.ADVERTISE, SERVER_DUID, ADDRESS6, FILE6, names, (dhcp6.PREFERENCE, b"\xff"), relay=relay)
    made.dhcp6(dhcp6.REPLY, (dhcp6.SERVER_ID, b"\0\1\0\1\1\2\3\4\2\0\0\0\0\6"), NO_ADDRESSES6, relay=relay)
    made.dhcp6(dhcp6.REQUEST, SERVER_DUID, ADDRESS6, (dhcp6.ELAPSED, b"\0\x64"), *ASKED6, relay=relay)
    (tmp_path / "a.pcap").write_bytes(made.octets())
    agreed(tmp_path / "a.pcap", header=8, octets=22, value=17)


# --- links and formats ------------------------------------------------------------------------------------------------

LINKS = {
    "cooked": pcap.LINUX_SLL, "cooked 2": pcap.LINUX_SLL2, "raw": pcap.RAW_IP, "loopback": pcap.NULL,
    "OpenBSD loopback": pcap.LOOP,
}  # fmt: skip


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_every_link_layer_reads_the_same(link: int, tmp_path: Path) -> None:
    (tmp_path / "a.pcap").write_bytes(transfers().octets(link))
    agreed(tmp_path / "a.pcap", header=60, octets=20, name=5)


@pytest.mark.parametrize("tags", [
    (ethernet.Tag(ethernet.VLAN, 42),),
    (ethernet.Tag(ethernet.SERVICE_VLAN, 7), ethernet.Tag(ethernet.VLAN, 42)),
    (ethernet.Tag(ethernet.VLAN, 7), ethernet.Tag(ethernet.VLAN, 0xE000 | 42)),
])  # fmt: skip
def test_tagged_frames_read_the_same(tags: tuple[ethernet.Tag, ...], tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(transfers().tagged(*tags).octets())
    agreed(path, header=60, octets=20, name=5)
    (machine,) = explain.gathered(pcap.read([path.read_bytes()])).machines.values()
    theirs = dissected(path, "dhcp", "vlan.id")
    assert [str(one.vlan) for one in machine.said] == [row[0].split("|")[-1] for row in theirs]


@pytest.mark.parametrize(("nanoseconds", "grain"), [(True, 1), (False, 1000)])
def test_times_are_tshark_s_to_the_last_digit(nanoseconds: bool, grain: int, tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    made = transfers()
    made.packets = [pcap.Packet(one.at + 123_456_789, one.data, one.size) for one in made.packets]
    path.write_bytes(made.octets(nanoseconds=nanoseconds))
    (machine,) = explain.gathered(pcap.read([path.read_bytes()])).machines.values()
    theirs = [row[0] for row in dissected(path, "dhcp", "frame.time_epoch")]
    assert [f"{one.at // 10**9}.{one.at % 10**9:09}" for one in machine.said] == theirs
    assert machine.said[0].at % grain == 0
    assert machine.said[0].at >= BEGAN


def test_a_pcapng_of_several_links_reads_the_same(tmp_path: Path) -> None:
    parts = []
    for number, (kind, link) in enumerate(((UEFI, pcap.ETHERNET), (BIOS, pcap.LINUX_SLL2), (IPXE, pcap.RAW_IP))):
        part = tmp_path / f"{number}.pcap"
        part.write_bytes(Capture(kind).booted().octets(link, nanoseconds=number != 1))
        parts.append(str(part))
    command = ["mergecap", "-F", "pcapng", "-w", str(tmp_path / "all.pcapng"), *parts]
    subprocess.run(command, check=True, timeout=60)
    links = {(one.interface, one.link) for one in pcap.read([(tmp_path / "all.pcapng").read_bytes()])}
    assert links == {(0, pcap.ETHERNET), (1, pcap.LINUX_SLL2), (2, pcap.RAW_IP)}
    agreed(tmp_path / "all.pcapng", header=200, octets=80)
