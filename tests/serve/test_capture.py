"""`--pcap`: what the server saw and sent. Needs network namespaces."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootwire.facts import Fact, Warned
from bootwire.serve.capture import Capture
from bootwire.serve.interfaces import Interface, interfaces
from bootwire.wire import ethernet, ip, pcap
from namespaces import Namespace, pair

pytestmark = pytest.mark.interop

HTTP_PORT = 8080


@pytest.fixture
def cable() -> Iterator[tuple[Namespace, Namespace]]:
    with pair() as (one, two):
        yield one, two


def begin(namespace: Namespace, path: Path, facts: list[Fact], *names: str) -> Capture:
    def go() -> Capture:
        chosen = [link for link in interfaces() if link.name in names]
        return Capture(str(path), chosen, HTTP_PORT, facts.append)

    return namespace.call(go)


def udp(namespace: Namespace, address: str, port: int) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, port))
        made.settimeout(5)
        return made

    return namespace.call(make)


def packets(path: Path) -> list[pcap.Packet]:
    return list(pcap.read([path.read_bytes()]))


def payloads(path: Path) -> list[bytes]:
    return [ip.parse_ipv4(ethernet.parse(packet.data).payload).payload[8:] for packet in packets(path)]


def test_both_directions_are_there_and_tshark_agrees(cable: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    facts: list[Fact] = []
    path = tmp_path / "x.pcap"
    capture = begin(cable[0], path, facts, "here")
    server, machine = udp(cable[0], "10.9.0.1", 69), udp(cable[1], "10.9.0.2", 2070)
    machine.sendto(b"\0\1kernel\0octet\0", ("10.9.0.1", 69))
    server.recv(100)
    server.sendto(b"\0\3\0\1" + bytes(512), ("10.9.0.2", 2070))
    machine.recv(1000)
    for port in (HTTP_PORT, 2222):
        with (
            cable[0].call(lambda port=port: socket.create_server(("10.9.0.1", port))) as listener,
            cable[1].call(lambda port=port: socket.create_connection(("10.9.0.1", port))) as client,
            listener.accept()[0] as accepted,
        ):
            client.sendall(b"GET /kernel HTTP/1.1\r\nHost: x\r\n\r\n")
            accepted.recv(100)
    capture.close()
    server.close()
    machine.close()
    assert not facts
    rows = tshark(path, "-T", "fields", "-e", "ip.src", "-e", "_ws.col.Protocol", "-e", "tcp.port")
    assert [row[:2] for row in rows[:2]] == [["10.9.0.2", "TFTP"], ["10.9.0.1", "TFTP"]]
    assert any(row[1] == "HTTP" for row in rows)
    assert not any("2222" in row[2] for row in rows if len(row) > 2)
    moments = [packet.at for packet in packets(path)]
    assert moments == sorted(moments)


def test_a_tag_that_the_kernel_took_out_is_put_back(cable: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    capture = begin(cable[0], tmp_path / "x.pcap", [], "here")
    source, destination = ip.v4_octets("10.9.0.2"), ip.v4_octets("10.9.0.1")
    packet = ip.Ipv4(source, destination, ip.UDP, ip.emit_udp(ip.Udp(1, 2, b"tagged"), source, destination))
    tags = (ethernet.Tag(ethernet.VLAN, 5),)
    frame = ethernet.Frame(ethernet.BROADCAST, bytes(6), ethernet.IPV4, ip.emit_ipv4(packet), tags)
    with cable[1].call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as wire:
        cable[1].call(lambda: wire.bind(("there", 0)))
        wire.send(ethernet.emit(frame))
    capture.close()
    assert [ethernet.parse(packet.data) for packet in packets(tmp_path / "x.pcap")] == [frame]


def test_loopback_is_captured_once(tmp_path: Path, cable: tuple[Namespace, Namespace]) -> None:
    capture = begin(cable[0], tmp_path / "x.pcap", [], "lo")
    one, two = udp(cable[0], "127.0.0.1", 0), udp(cable[0], "127.0.0.1", 0)
    one.sendto(b"hello", two.getsockname())
    two.recv(100)
    capture.close()
    one.close()
    two.close()
    assert payloads(tmp_path / "x.pcap") == [b"hello"]


def test_a_link_without_ethernet_header_gets_one(tmp_path: Path, cable: tuple[Namespace, Namespace]) -> None:
    if not os.path.exists("/dev/net/tun"):
        pytest.fail("/dev/net/tun is needed: modprobe tun")
    cable[0].run("ip tuntap add bwtun mode tun")
    cable[0].run("ip address add 10.8.0.1/24 dev bwtun")
    tun = cable[0].call(_attach)
    cable[0].run("ip link set bwtun up")
    capture = begin(cable[0], tmp_path / "x.pcap", [], "bwtun")
    one = udp(cable[0], "10.8.0.1", 0)
    one.sendto(b"hello", ("10.8.0.2", 9))
    capture.close()
    one.close()
    os.close(tun)
    assert b"hello" in payloads(tmp_path / "x.pcap")


def test_a_flood_is_counted_honestly(cable: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    facts: list[Fact] = []
    capture = begin(cable[0], tmp_path / "x.pcap", facts, "here")
    machine = udp(cable[1], "10.9.0.2", 0)
    for _ in range(20_000):
        machine.sendto(bytes(1400), ("10.9.0.1", 9))
    capture.close()
    machine.close()
    missing = sum(int(fact.what.split()[0]) for fact in facts if isinstance(fact, Warned))
    # what came in, and our own kernel's ICMP is not captured
    assert len(packets(tmp_path / "x.pcap")) + missing == 20_000


def test_a_capture_that_nobody_ended_is_a_whole_file_soon(cable: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    capture = begin(cable[0], path, [], "here")
    with udp(cable[1], "10.9.0.2", 0) as machine:
        for _ in range(10):
            machine.sendto(b"hello", ("10.9.0.1", 9))
    until = time.monotonic() + 10
    while path.stat().st_size < 24 + 10 * (16 + 14 + 20 + 8 + 5) and time.monotonic() < until:
        time.sleep(0.02)
    assert payloads(path) == [b"hello"] * 10
    capture.close()


def test_a_full_disk_ends_the_capture_with_a_whole_record(cable: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], check=True)
    try:
        facts: list[Fact] = []
        path = tmp_path / "x.pcap"
        capture = begin(cable[0], path, facts, "here")
        machine = udp(cable[1], "10.9.0.2", 0)
        for _ in range(1_000):
            machine.sendto(bytes(1400), ("10.9.0.1", 9))
        capture.close()
        machine.close()
        assert [fact.what for fact in facts if isinstance(fact, Warned)] == [
            f"the capture in {path} ends here: No space left on device"
        ]
        packets(path)  # raises at a torn record
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_what_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Capture(str(tmp_path / "no" / "x.pcap"), [], HTTP_PORT, print)
    gone = Interface("bwgone", 99, "", 1500, True, True, False, ())
    with pytest.raises(OSError, match="No such device"):
        Capture(str(tmp_path / "x.pcap"), [gone], HTTP_PORT, print)


def tshark(path: Path, *arguments: str) -> list[list[str]]:
    command = ["tshark", "-n", "-r", str(path), *arguments]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split("\t") for line in shown.splitlines()]


def _attach() -> int:
    import fcntl
    import struct

    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"bwtun", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
    return tun
