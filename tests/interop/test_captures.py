"""Our captures in others' readers, others' captures in ours: Wireshark's tools, tcpdump and dumpcap."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from bootwire.wire import ethernet, ip, pcap
from namespaces import pair

pytestmark = pytest.mark.interop

BEGAN = 1_700_000_000_123_456_789


def frame(number: int) -> bytes:
    """A TFTP DATA block from 10.9.0.1 to 10.9.0.2."""
    source, destination = ip.v4_octets("10.9.0.1"), ip.v4_octets("10.9.0.2")
    block = b"\0\3" + number.to_bytes(2, "big") + bytes(number)
    datagram = ip.emit_udp(ip.Udp(69, 2070, block), source, destination)
    packet = ip.emit_ipv4(ip.Ipv4(source, destination, ip.UDP, datagram))
    return ethernet.emit(ethernet.Frame(b"\2\0\0\0\0\2", b"\2\0\0\0\0\1", ethernet.IPV4, packet))


def packets() -> list[pcap.Packet]:
    return [pcap.Packet(BEGAN + n * 1_000_000_001, frame(n), len(frame(n))) for n in range(1, 20)]


def write(path: Path, *, nanoseconds: bool = True) -> Path:
    records = [pcap.record(p.at, p.data, p.size, nanoseconds=nanoseconds) for p in packets()]
    path.write_bytes(pcap.file_header(nanoseconds=nanoseconds) + b"".join(records))
    return path


def tell(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(("nanoseconds", "digits"), [(True, 9), (False, 6)])
def test_tshark_reads_what_we_write(tmp_path: Path, nanoseconds: bool, digits: int) -> None:
    path = write(tmp_path / "ours.pcap", nanoseconds=nanoseconds)
    fields = ("frame.time_epoch", "frame.len", "ip.checksum.status", "udp.checksum.status", "tftp.block")
    checks = ("-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-d", "udp.port==69,tftp")
    shown = tell("tshark", "-n", "-r", path, *checks, "-T", "fields", *[a for f in fields for a in ("-e", f)])
    seconds = [f"{p.at // 10**9}.{p.at % 10**9:09}"[: 11 + digits].ljust(20, "0") for p in packets()]
    expected = [[s, str(p.size), "1", "1", str(n)] for n, (s, p) in enumerate(zip(seconds, packets(), strict=True), 1)]
    assert [row.split("\t") for row in shown.splitlines()] == expected


def test_tcpdump_reads_what_we_write(tmp_path: Path) -> None:
    shown = tell("tcpdump", "-n", "-vv", "--nano", "-r", write(tmp_path / "ours.pcap"))
    assert shown.count("10.9.0.1.69 > 10.9.0.2.2070") == 19
    assert "bad" not in shown


@pytest.mark.parametrize(("kind", "grain"), [("pcapng", 1), ("nsecpcap", 1), ("pcap", 1000)])
def test_we_read_what_wireshark_converts(tmp_path: Path, kind: str, grain: int) -> None:
    tell("editcap", "-F", kind, write(tmp_path / "ours.pcap"), tmp_path / "theirs")
    with open(tmp_path / "theirs", "rb") as file:
        found = list(pcap.read(iter(lambda: file.read(1000), b"")))
    assert found == [pcap.Packet(p.at // grain * grain, p.data, p.size) for p in packets()]


def test_a_merged_pcapng_of_two_links_keeps_them_apart(tmp_path: Path) -> None:
    raw = pcap.file_header(pcap.RAW_IP) + pcap.record(BEGAN, frame(1)[14:], len(frame(1)) - 14)
    (tmp_path / "raw.pcap").write_bytes(raw)
    tell("mergecap", "-F", "pcapng", "-w", tmp_path / "both", write(tmp_path / "ours.pcap"), tmp_path / "raw.pcap")
    found = list(pcap.read([(tmp_path / "both").read_bytes()]))
    assert {packet.link for packet in found} == {pcap.ETHERNET, pcap.RAW_IP}
    assert len(found) == 20


@pytest.mark.parametrize("command", [
    ("tcpdump", "-n", "-i", "here", "--immediate-mode", "-c", "5", "udp", "-w"),
    ("tcpdump", "-n", "-i", "here", "--immediate-mode", "--time-stamp-precision=nano", "-c", "5", "udp", "-w"),
    ("dumpcap", "-q", "-i", "here", "-c", "5", "-f", "udp", "-w"),
    ("dumpcap", "-q", "-P", "-i", "here", "-c", "5", "-f", "udp", "-w"),
])  # fmt: skip
def test_we_read_what_others_capture(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = tmp_path / "theirs"
    with pair() as (one, two):
        capturing = one.start(*command, str(path), stderr=subprocess.PIPE)
        assert capturing.stderr is not None
        for line in capturing.stderr:  # both say so when they listen
            if line.startswith((b"tcpdump: listening", b"File:")):
                break
        with two.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
            for _ in range(5):
                sender.sendto(b"datagram", ("10.9.0.1", 9))
        capturing.communicate(timeout=20)
    found = list(pcap.read([path.read_bytes()]))
    assert [ip.parse_ipv4(ethernet.parse(p.data).payload).payload[8:] for p in found] == [b"datagram"] * 5
