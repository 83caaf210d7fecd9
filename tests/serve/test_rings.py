"""Each machine's last frames: whose each is, how many are kept, and what the kernel leaves out."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootwire.serve.interfaces import interfaces
from bootwire.serve.rings import FRAMES, MACHINES, OCTETS, Rings
from bootwire.wire import ethernet, ip, pcap
from namespaces import Namespace, pair

MACHINE, US, ROUTER = "52:54:00:00:00:09", "02:00:00:00:00:01", "02:00:00:00:00:fe"


@pytest.fixture
def rings() -> Iterator[Rings]:
    made = Rings((), 80, {"10.0.0.9": MACHINE}.get)  # type: ignore[arg-type]
    made._own, made._macs = {"10.0.0.1"}, {ethernet.mac_octets(US)}
    yield made
    made.close()


def frame(source: str, destination: str, addresses: tuple[str, str], payload: bytes) -> bytes:
    packet = ip.emit_ipv4(ip.Ipv4(*map(ip.v4_octets, addresses), ip.UDP, payload=payload))
    macs = (ethernet.mac_octets(destination), ethernet.mac_octets(source))
    return ethernet.emit(ethernet.Frame(*macs, ethernet.IPV4, packet))


def udp(source: int, destination: int, data: bytes) -> bytes:
    return (
        source.to_bytes(2, "big") + destination.to_bytes(2, "big") + (8 + len(data)).to_bytes(2, "big") + b"\0\0" + data
    )


def bootp(machine: str) -> bytes:
    return bytes(28) + ethernet.mac_octets(machine) + bytes(220)


def kept(rings: Rings, machine: str) -> int:
    found = rings.pcap(machine, 0, 100)
    return len(list(pcap.read([found]))) if found else 0


@pytest.mark.parametrize(("whose", "octets"), [
    ("the one it asks for", frame(ROUTER, US, ("10.9.0.1", "10.0.0.1"), udp(67, 67, bootp(MACHINE)))),
    ("the one it is for", frame(US, ROUTER, ("10.0.0.1", "10.9.0.1"), udp(67, 67, bootp(MACHINE)))),
    ("who has the address", frame(ROUTER, US, ("10.0.0.9", "10.0.0.1"), udp(2070, 69, b"\0\1x\0octet\0"))),
    ("who has the address we send to", frame(US, ROUTER, ("10.0.0.1", "10.0.0.9"), udp(3000, 2070, b"\0\6"))),
    ("who sent it", frame(MACHINE, US, ("10.0.0.77", "10.0.0.1"), udp(2070, 69, b"\0\1x\0octet\0"))),
    ("whom we send it to", frame(US, MACHINE, ("10.0.0.1", "10.0.0.77"), udp(3000, 2070, b"\0\6"))),
])  # fmt: skip
def test_whose_a_frame_is(rings: Rings, whose: str, octets: bytes) -> None:
    rings.keep(10**9, octets)
    assert kept(rings, MACHINE) == 1, whose


@pytest.mark.parametrize("octets", [b"", b"\xff" * 60, bytes(60), b"\x01" * 13])
def test_rubbish_is_nobodys(rings: Rings, octets: bytes) -> None:
    rings.keep(10**9, octets)
    assert rings._rings == {}


def test_a_ring_keeps_the_last_frames_and_no_more_octets_than_it_may(rings: Rings) -> None:
    small = frame(MACHINE, US, ("10.0.0.9", "10.0.0.1"), udp(2070, 69, b"\0\1x\0octet\0"))
    for number in range(FRAMES + 100):
        rings.keep(10**9 + number, small)
    assert kept(rings, MACHINE) == FRAMES
    large = frame(MACHINE, US, ("10.0.0.9", "10.0.0.1"), udp(68, 67, bootp(MACHINE) + bytes(1_000)))
    for number in range(FRAMES):
        rings.keep(2 * 10**9 + number, large)
    assert kept(rings, MACHINE) == OCTETS // len(large)


def test_machines_are_bounded_the_one_not_heard_for_longest_first(rings: Rings) -> None:
    def name(number: int) -> str:
        return f"52:54:00:01:{number // 256:02x}:{number % 256:02x}"

    for number in range(MACHINES + 10):
        rings.keep(10**9, frame(name(number), US, ("10.0.0.8", "10.0.0.1"), udp(2070, 69, b"\0\1x\0octet\0")))
    assert (kept(rings, name(9)), kept(rings, name(10))) == (0, 1)


def test_only_the_boot_in_question_is_in_its_capture(rings: Rings) -> None:
    octets = frame(MACHINE, US, ("10.0.0.9", "10.0.0.1"), udp(2070, 69, b"\0\1x\0octet\0"))
    for second in (100, 1_000, 5_000):
        rings.keep(second * 10**9, octets)
    found = rings.pcap(MACHINE, 999, 1_001)
    assert found
    assert [packet.at for packet in pcap.read([found])] == [1_000 * 10**9]


@pytest.mark.interop
def test_the_kernel_keeps_what_is_said_and_drops_the_bulk(tmp_path: Path) -> None:
    """On a real cable: DHCP, TFTP's beginning and end, HTTP's request; not a block, not an ACK. tshark can read it."""
    with pair() as (one, two):
        chosen = one.call(lambda: [link for link in interfaces() if link.name == "here"])
        found = one.call(lambda: Rings(chosen, 8080, lambda address: MACHINE if address == "10.9.0.2" else ""))
        try:
            _talk(one, two)
            until_heard(found)
            written = found.pcap(MACHINE, 0, 2**31)
            assert written
        finally:
            found.close()
    path = tmp_path / "boot.pcap"
    path.write_bytes(written)
    shown = subprocess.run(
        ["tshark", "-r", str(path), "-d", "udp.port==5000,tftp", "-T", "fields", "-e", "_ws.col.Protocol", "-e",
         "_ws.col.Info"], capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    said = [line.replace("\t", " ") for line in shown.splitlines()]
    assert any("Read Request" in line for line in said)
    assert any("Option Acknowledgement" in line for line in said)
    assert any("Block: 1" in line for line in said)
    assert any("GET /boot.ipxe" in line for line in said)
    assert not any("Block: 2" in line or "Block: 200" in line for line in said)


def until_heard(rings: Rings) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        found = rings.pcap(MACHINE, 0, 2**31)
        if found and b"GET /boot.ipxe" in found:
            return
        time.sleep(0.05)
    raise AssertionError("the request was not heard")


def _talk(one: Namespace, two: Namespace) -> None:
    def bound(space: Namespace, address: str, port: int, kind: socket.SocketKind) -> socket.socket:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET, kind)
            made.bind((address, port))
            return made

        return space.call(make)

    server = bound(one, "10.9.0.1", 5000, socket.SOCK_DGRAM)
    listening = bound(one, "10.9.0.1", 8080, socket.SOCK_STREAM)
    listening.listen()
    client = bound(two, "10.9.0.2", 2070, socket.SOCK_DGRAM)
    with server, listening, client:
        client.sendto(b"\0\1boot.efi\0octet\0", ("10.9.0.1", 69))
        server.sendto(b"\0\6tsize\x00100\0", ("10.9.0.2", 2070))
        for block in (1, 2, 200):
            server.sendto(b"\0\3" + block.to_bytes(2, "big") + bytes(512), ("10.9.0.2", 2070))
            client.sendto(b"\0\4" + block.to_bytes(2, "big"), ("10.9.0.1", 5000))
        asking = bound(two, "10.9.0.2", 0, socket.SOCK_STREAM)
        with asking:
            asking.connect(("10.9.0.1", 8080))
            asking.sendall(b"GET /boot.ipxe HTTP/1.1\r\n\r\n")
