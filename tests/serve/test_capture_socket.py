"""Hearing and speaking a port that somebody else owns. Needs network namespaces."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from bootwire.serve.capture_socket import CaptureSocket, Heard
from bootwire.serve.interfaces import Interface, interfaces
from bootwire.wire import ethernet, ip
from namespaces import Namespace, pair

pytestmark = pytest.mark.interop

HERE, THERE = "02:00:00:00:00:01", "02:00:00:00:00:02"


@pytest.fixture
def cable() -> Iterator[tuple[Namespace, Namespace]]:
    with pair() as (one, two):
        yield one, two


def capture(namespace: Namespace, port: int, *, outgoing: bool = False) -> CaptureSocket:
    return namespace.call(lambda: CaptureSocket(_interface(), port, outgoing=outgoing))


def udp(namespace: Namespace, port: int) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _interface().name.encode())
        made.bind(("", port))
        made.settimeout(5)
        return made

    return namespace.call(make)


def raw(namespace: Namespace) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.bind((_interface().name, 0))
        return made

    return namespace.call(make)


def hear(by: CaptureSocket) -> Heard:
    assert select.select([by], [], [], 5)[0], "nothing heard"
    heard = by.receive()
    assert heard is not None
    return heard


def test_a_port_that_another_daemon_owns_is_heard_and_answered(cable: tuple[Namespace, Namespace]) -> None:
    owner = udp(cable[0], 67)
    ours, machine = capture(cable[0], 67), udp(cable[1], 68)
    machine.sendto(b"discover", ("255.255.255.255", 67))
    heard = hear(ours)
    assert heard == Heard(b"discover", "10.9.0.2", 68, "255.255.255.255", 67, THERE)
    assert owner.recv(100) == b"discover"
    ours.send(b"to all", "10.9.0.1", 67)
    assert machine.recvfrom(100) == (b"to all", ("10.9.0.1", 67))
    ours.send(b"to one", "10.9.0.1", 67, "10.9.0.2", 68, heard.ethernet_source)
    assert machine.recvfrom(100) == (b"to one", ("10.9.0.1", 67))
    for end in (owner, ours, machine):
        end.close()


def test_other_ports_and_other_protocols_wake_nobody(cable: tuple[Namespace, Namespace]) -> None:
    ours, machine = capture(cable[0], 67), udp(cable[1], 68)
    machine.sendto(b"tftp", ("10.9.0.1", 69))
    machine.sendto(b"dhcp", ("10.9.0.1", 67))
    assert hear(ours).payload == b"dhcp"
    assert ours.receive() is None
    ours.close()
    machine.close()


def test_answers_of_a_server_elsewhere_are_overheard(cable: tuple[Namespace, Namespace]) -> None:
    ours, server = capture(cable[0], 68), udp(cable[1], 67)
    server.sendto(b"offer", ("255.255.255.255", 68))
    assert hear(ours) == Heard(b"offer", "10.9.0.2", 67, "255.255.255.255", 68, THERE)
    ours.close()
    server.close()


def test_answers_of_a_server_on_this_machine_are_overheard_when_asked_for(cable: tuple[Namespace, Namespace]) -> None:
    ours, deaf, server = capture(cable[0], 68, outgoing=True), capture(cable[0], 68), udp(cable[0], 67)
    server.sendto(b"offer", ("255.255.255.255", 68))
    assert hear(ours) == Heard(b"offer", "10.9.0.1", 67, "255.255.255.255", 68, HERE, outgoing=True)
    assert deaf.receive() is None
    ours.close()
    deaf.close()
    server.close()


def test_what_a_socket_sends_it_does_not_hear(cable: tuple[Namespace, Namespace]) -> None:
    ours, server = capture(cable[0], 68, outgoing=True), udp(cable[0], 67)
    ours.send(b"ours", "10.9.0.1", 67)
    server.sendto(b"theirs", ("255.255.255.255", 68))
    assert hear(ours).payload == b"theirs"
    ours.close()
    server.close()


def test_a_priority_tag_is_taken_and_another_vlan_is_not(cable: tuple[Namespace, Namespace]) -> None:
    ours, wire = capture(cable[0], 67), raw(cable[1])
    for tci, payload in ((5, b"vlan 5"), (0xE000, b"priority 7"), (0, b"priority 0")):
        wire.send(_frame(payload, tags=(ethernet.Tag(ethernet.VLAN, tci),)))
    assert [hear(ours).payload, hear(ours).payload, ours.receive()] == [b"priority 7", b"priority 0", None]
    ours.close()
    wire.close()


def test_damage_fragments_and_frames_for_others_are_left_out(cable: tuple[Namespace, Namespace]) -> None:
    ours, wire = capture(cable[0], 67), raw(cable[1])
    good = _frame(b"good")
    wire.send(good[:30] + bytes([good[30] ^ 1]) + good[31:])  # an address: both checksums are wrong
    wire.send(good[:-1])
    wire.send(good[:-1] + b"!")
    wire.send(_frame(b"first part", flags=ip.MORE_FRAGMENTS))
    wire.send(b"\x02\0\0\0\0\x77" + good[6:])
    wire.send(good)
    assert hear(ours).payload == b"good"
    assert ours.receive() is None
    ours.close()
    wire.close()


def test_a_flood_is_counted_by_the_kernel_and_survived(cable: tuple[Namespace, Namespace]) -> None:
    ours, machine = capture(cable[0], 67), udp(cable[1], 68)
    for _ in range(5_000):
        machine.sendto(bytes(300), ("10.9.0.1", 67))
    heard = 0
    while ours.receive():
        heard += 1
    assert ours.lost > 0
    assert heard + ours.lost == 5_000
    assert ours.lost == 5_000 - heard  # asked again, still the total
    ours.close()
    machine.close()


def test_without_the_interface_there_is_no_socket() -> None:
    gone = Interface("bwgone", 99, HERE, 1500, True, True, False, ())
    with pytest.raises(OSError, match="No such device"):
        CaptureSocket(gone, 67)


def test_an_interface_that_goes_down_is_an_error_and_up_again_it_is_heard(cable: tuple[Namespace, Namespace]) -> None:
    ours, machine = capture(cable[0], 67), udp(cable[1], 68)
    cable[0].run("ip link set here down")
    assert select.select([ours], [], [], 5)[0]
    with pytest.raises(OSError, match="Network is down"):
        ours.receive()
    cable[0].run("ip link set here up")
    cable[1].wait_for_carrier()
    machine.sendto(b"still there?", ("255.255.255.255", 67))
    assert hear(ours).payload == b"still there?"
    ours.close()
    machine.close()


def _interface() -> Interface:
    return next(link for link in interfaces() if link.name in ("here", "there"))


def _frame(payload: bytes, *, flags: int = 0, tags: tuple[ethernet.Tag, ...] = ()) -> bytes:
    source, destination = ip.v4_octets("0.0.0.0"), ip.v4_octets("255.255.255.255")
    datagram = ip.emit_udp(ip.Udp(68, 67, payload), source, destination)
    packet = ip.emit_ipv4(ip.Ipv4(source, destination, ip.UDP, datagram, flags=flags))
    return ethernet.emit(ethernet.Frame(ethernet.BROADCAST, ethernet.mac_octets(THERE), ethernet.IPV4, packet, tags))
