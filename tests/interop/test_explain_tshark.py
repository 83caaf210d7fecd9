"""Wireshark's dissectors beside `bootwire explain`: DHCP options, TFTP requests and blocks, HTTP, on every capture."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bootwire.observe import explain
from bootwire.wire import dhcp4, pcap
from capture_maker import BIOS, HTTP, IPXE, UEFI, Capture

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
