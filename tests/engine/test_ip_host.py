"""Hosts on a wire without faults: what each protocol does for the next."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bootwire.engine import MS, S
from bootwire.engine.ip import Conflict, EchoReply, Frame, Host, Offload, Undelivered
from bootwire.engine.ip.frame import complete
from bootwire.engine.tcp import Config, Failure, State
from bootwire.wire import arp, checksum, ethernet, icmp, ip, ip6, tcp

A, B, C = (bytes((10, 0, 0, n)) for n in (1, 2, 3))
MAC_A, MAC_B, MAC_C = (bytes((2, 0, 0, 0, 0, n)) for n in (1, 2, 3))


class Wire:
    """Hosts that hear each other at once; time moves when nothing else does."""

    def __init__(self, *hosts: Host) -> None:
        self.hosts, self.now, self.seen = hosts, 0, []

    def settle(self, until: int = 0) -> None:
        while True:
            busy = False
            for host in self.hosts:
                for frame in host.transmit(self.now):
                    busy = True
                    for piece in complete(frame):
                        self.seen.append(piece.octets)
                        for other in self.hosts:
                            if other is not host:
                                other.receive(piece, self.now)
            if busy:
                continue
            due = min((h.deadline for h in self.hosts if h.deadline is not None), default=None)
            if due is None or due > until:
                self.now = max(self.now, until)
                return
            self.now = max(self.now, due)
            for host in self.hosts:
                host.tick(self.now)


def host(mac: bytes, address: bytes | None = None, **options) -> Host:
    made = Host(mac, b"k" * 16, **options)
    if address:
        made.add_address(address, 24, 0)
    return made


@pytest.fixture
def wire() -> Wire:
    made = Wire(host(MAC_A, A), host(MAC_B, B))
    made.settle()
    made.seen.clear()
    return made


def test_a_ping_asks_by_arp_and_is_answered(wire):
    a, b = wire.hosts
    assert a.ping(B, 7, 1, 0, b"hello") == ""
    wire.settle()
    assert list(a.events) == [EchoReply(B, 7, 1, b"hello")]
    assert [ethernet.parse(f).ethertype for f in wire.seen] == [ethernet.ARP] * 2 + [ethernet.IPV4] * 2
    assert [m for _, m, _ in b.neighbours.table()] == [MAC_A]  # learned from the question


def test_nobody_answers_for_the_address(wire):
    a, _ = wire.hosts
    a.ping(C, 7, 1, 0)
    wire.settle(10 * S)
    (event,) = a.events
    assert (event.destination, event.because) == (C, "host unreachable (no answer on the link)")
    assert len(wire.seen) == 3  # questions, a second apart


def test_no_route_is_said_at_once(wire):
    assert wire.hosts[0].ping(bytes((192, 0, 2, 1)), 1, 1, 0) == "no route to host"


def test_an_old_neighbour_is_asked_again_alone_and_used_meanwhile(wire):
    a, _ = wire.hosts
    a.ping(B, 1, 1, 0)
    wire.settle(61 * S)
    wire.seen.clear()
    a.ping(B, 1, 2, wire.now)
    wire.settle(wire.now)
    question = next(arp.parse(f, 14) for f in wire.seen if f[12:14] == b"\x08\x06")
    assert question.target == B
    assert not any(f[:6] == ethernet.BROADCAST for f in wire.seen)
    assert len(a.events) == 2


def test_a_stranger_who_takes_our_address_is_told_and_reported(wire):
    a, _ = wire.hosts
    evil = host(MAC_C)
    wire = Wire(a, evil)
    evil.add_address(A, 24, 0)
    wire.settle()
    assert Conflict(A, MAC_C) in a.events
    assert arp.parse(wire.seen[-1], 14).sender == A  # the defence


def test_an_address_in_use_is_not_taken(wire):
    a, b = wire.hosts
    c = host(MAC_C)
    wire = Wire(a, b, c)
    c.add_address(B, 24, 0, probe=True)
    wire.settle(2 * S)
    assert list(c.events) == [Conflict(B, MAC_B)]
    assert c.addresses == []
    c.add_address(C, 24, wire.now, probe=True)
    assert c.addresses == []
    wire.settle(wire.now + S)
    assert c.addresses == [(C, 24)]


def test_a_large_datagram_crosses_in_fragments(wire):
    a, b = wire.hosts
    port = b.bind_udp(5000)
    payload = bytes(range(256)) * 20
    assert a.send_udp(payload, B, 5000, 4000, 0) == ""
    wire.settle()
    assert port.take() == (payload, A, 4000, B)
    assert sum(f[12:14] == b"\x08\x00" for f in wire.seen) == 4


def test_overlapping_fragments_spoil_the_datagram(wire):
    b = wire.hosts[1]
    port = b.bind_udp(5000)
    datagram = ip.emit_udp(ip.Udp(1, 5000, bytes(32)), A, B)
    for offset, more, data in ((0, 1, datagram[:24]), (2, 1, datagram[16:32]), (4, 0, datagram[32:])):
        packet = ip.emit_ipv4(ip.Ipv4(A, B, ip.UDP, data, flags=more, fragment=offset, identification=9))
        b.receive(Frame(MAC_B + MAC_A + b"\x08\x00" + packet), 0)
    assert port.take() is None
    assert b.dropped["overlapping fragment"] == 1


def test_a_closed_udp_port_is_reported_to_the_sender(wire):
    a, _ = wire.hosts
    port = a.bind_udp(4000)
    a.send_udp(b"anybody?", B, 9, 4000, 0)
    wire.settle()
    assert [(e.destination, e.by, e.because) for e in port.errors] == [(B, B, "port unreachable")]


def test_icmp_errors_are_sent_at_a_limited_rate(wire):
    a, _ = wire.hosts
    for _ in range(200):
        a.send_udp(b"x", B, 9, 4000, 0)
        wire.settle()
    assert sum(f[23] == 1 for f in wire.seen if f[12:14] == b"\x08\x00") == 20


def test_a_udp_queue_is_bounded(wire):
    a, b = wire.hosts
    port = b.bind_udp(5000)
    for _ in range(500):
        a.send_udp(b"x", B, 5000, 4000, 0)
        wire.settle()
    assert (len(port.queue), port.dropped) == (256, 244)


def test_wrong_checksums_are_dropped_unless_the_link_vouches(wire):
    b = wire.hosts[1]
    port = b.bind_udp(5000)
    datagram = bytearray(ip.emit_udp(ip.Udp(1, 5000, b"data"), A, B))
    datagram[-1] ^= 1
    octets = MAC_B + MAC_A + b"\x08\x00" + ip.emit_ipv4(ip.Ipv4(A, B, ip.UDP, bytes(datagram)))
    b.receive(Frame(octets), 0)
    assert port.take() is None
    b.receive(Frame(octets, trusted=True), 0)
    assert port.take() is not None


def test_tcp_between_hosts_and_the_connection_that_is_not_there(wire):
    a, b = wire.hosts
    listener = b.listen(80)
    flow = a.connect(B, 80, 0)
    wire.settle()
    server = listener.ready.popleft()
    assert flow.connection.state is server.connection.state is State.ESTABLISHED
    flow.connection.write(b"GET")
    a.touch(flow)
    wire.settle()
    assert server.connection.read(10) == b"GET"
    refused = a.connect(B, 81, wire.now)
    wire.settle(wire.now)
    assert refused.connection.failure is Failure.REFUSED
    assert refused not in a.flows


def test_connecting_to_nobody_fails_by_name_as_soon_as_the_link_knows(wire):
    a, _ = wire.hosts
    flow = a.connect(C, 80, 0)
    wire.settle(10 * S)
    assert flow.connection.failure is Failure.UNREACHABLE
    assert wire.now <= 10 * S


def test_the_backlog_is_bounded_in_both_halves(wire):
    a, b = wire.hosts
    listener = b.listen(80, backlog=4)
    for _ in range(10):
        a.connect(B, 80, 0)
    wire.settle()
    assert len(listener.ready) == 4
    while listener.ready:
        listener.ready.popleft()
    for port in range(1000):  # a flood of SYNs from nobody
        syn = tcp.emit(tcp.Segment(port + 1, 80, 1, 0, tcp.SYN, 100), checksum.pseudo(C, B, 6, 20))
        b.receive(Frame(MAC_B + MAC_C + b"\x08\x00" + ip.emit_ipv4(ip.Ipv4(C, B, 6, syn))), 0)
    assert len(listener.half) == 4
    assert len(b.flows) < 20


def test_initial_sequence_numbers_and_ports_do_not_repeat(wire):
    a, _ = wire.hosts
    flows = [a.connect(B, 80, 0) for _ in range(500)]
    numbers = [f.connection._iss for f in flows]
    ports = [f.connection.local for f in flows]
    assert len(set(numbers)) == len(set(ports)) == 500
    gaps = [y - x for x, y in pairwise(ports)]
    assert len(set(gaps)) > 400


def test_a_super_segment_is_cut_by_the_link_into_what_a_mtu_takes():
    a, b = host(MAC_A, A, offload=Offload(True, True)), host(MAC_B, B)
    wire = Wire(a, b)
    listener = b.listen(80)
    flow = a.connect(B, 80, 0)
    wire.settle()
    data = bytes(range(251)) * 50
    flow.connection.write(data)
    a.touch(flow)
    (frame,) = a.transmit(wire.now)
    assert len(frame.octets) > 10_000
    for piece in complete(frame):
        assert len(piece.octets) <= 1514
        b.receive(piece, wire.now)
    assert listener.ready[0].connection.read(20_000) == data
    assert b.dropped.total() == 0


def test_path_mtu_from_icmp_is_believed_for_our_own_segments_only(wire):
    a, b = wire.hosts
    listener = b.listen(80)
    flow = a.connect(B, 80, 0)
    wire.settle()
    flow.connection.write(bytes(5000))
    a.touch(flow)
    sent = a.transmit(wire.now)
    quote = sent[0].octets[14:42]
    router = host(MAC_C, C)
    for piece, expected in ((quote[:24] + b"\0\0\0\0", 1448), (quote, 1000 - 52)):
        error = icmp.emit4(icmp.Problem(icmp.UNREACHABLE4, icmp.FRAGMENT_NEEDED4, 1000, piece))
        packet = ip.emit_ipv4(ip.Ipv4(C, A, 1, error))
        a.receive(Frame(MAC_A + router.mac + b"\x08\x00" + packet), wire.now)
        assert flow.connection.mss == expected
    wire.settle(wire.now + S)
    assert listener.ready[0].connection.readable == 5000
    assert a.path_mtu(B, wire.now) == 1000


def test_a_vlan_host_speaks_and_hears_its_vlan_only():
    a, b, c = host(MAC_A, A, vlan=5), host(MAC_B, B, vlan=5), host(MAC_C, C)
    wire = Wire(a, b, c)
    a.ping(B, 1, 1, 0)
    wire.settle()
    assert len(a.events) == 1
    assert ethernet.parse(wire.seen[-1]).tags[0].vlan == 5
    assert c.dropped["another VLAN"] == len([f for f in wire.seen if f[0] & 1 and f[12:14] == b"\x81\x00"])


PREFIX = ip6.octets("2001:db8:1::")
ROUTER_MAC = b"\x02\0\0\0\0\xfe"


def advertise(to: Host, now: int, **fields) -> None:
    prefixes = fields.pop("prefixes", (icmp.Prefix(PREFIX, 64, True, True, 3600, 1800),))
    advert = icmp.RouterAdvert(64, 1800, link=ROUTER_MAC, prefixes=prefixes, **fields)
    source = ip6.link_local(ROUTER_MAC)
    packet = ip6.Ipv6(source, ip6.ALL_NODES, 58, icmp.emit6(advert, source, ip6.ALL_NODES), 255)
    to.receive(Frame(ip6.multicast_mac(ip6.ALL_NODES) + ROUTER_MAC + b"\x86\xdd" + ip6.emit(packet)), now)


def test_ipv6_addresses_come_from_the_link_and_a_router():
    a, b = host(MAC_A), host(MAC_B)
    wire = Wire(a, b)
    for h in (a, b):
        h.start_ipv6(0)
    wire.settle(2 * S)
    assert [ip6.text(x) for x, _ in a.addresses] == ["fe80::ff:fe00:1"]
    assert any(f[54] == icmp.ROUTER_SOLICIT for f in wire.seen)
    for h in (a, b):
        advertise(h, wire.now, dns=(PREFIX[:15] + b"\x35",))
    wire.settle(wire.now + 2 * S)
    assert [ip6.text(x) for x, _ in a.addresses] == ["fe80::ff:fe00:1", "2001:db8:1::ff:fe00:1"]
    assert a.dns == [PREFIX[:15] + b"\x35"]
    listener = b.listen(80)
    flow = a.connect(b.addresses[1][0], 80, wire.now)
    flow.connection.write(bytes(100_000))
    wire.settle(wire.now + S)
    assert listener.ready[0].connection.readable == 100_000
    assert flow.connection.mss == 1500 - 40 - 20 - 12
    a.ping(b.addresses[0][0], 3, 4, wire.now, bytes(4000))
    wire.settle(wire.now + S)
    assert a.events[-1] == EchoReply(b.addresses[0][0], 3, 4, bytes(4000))  # in fragments, there and back


def test_an_address_and_its_router_end_with_their_lifetimes():
    a = host(MAC_A)
    wire = Wire(a)
    a.start_ipv6(0)
    wire.settle(2 * S)
    advertise(a, wire.now)
    wire.settle(wire.now + 2 * S)
    assert len(a.addresses) == 2
    wire.settle(wire.now + 3600 * S)
    assert len(a.addresses) == 1
    assert a.routes.find(ip6.octets("2001:db8:9::1")) is None


def test_an_address_that_a_neighbour_has_is_not_taken_in_ipv6():
    a, twin = host(MAC_A), host(MAC_A)
    a.start_ipv6(0)
    Wire(a).settle(2 * S)
    twin.mac = MAC_B
    twin.add_address(ip6.link_local(MAC_A), 64, 2 * S, probe=True)
    wire = Wire(a, twin)
    wire.now = 2 * S
    wire.settle(4 * S)
    assert twin.addresses == []
    assert isinstance(twin.events[0], Conflict)


def test_router_advertisements_from_afar_or_without_end_cost_nothing():
    a = host(MAC_A)
    a.start_ipv6(0)
    Wire(a).settle(2 * S)
    source = ip6.octets("2001:db8::bad")
    advert = icmp.emit6(icmp.RouterAdvert(64, 1800), source, ip6.ALL_NODES)
    for origin, hops in ((source, 255), (ip6.link_local(ROUTER_MAC), 64)):
        advert = icmp.emit6(icmp.RouterAdvert(64, 1800), origin, ip6.ALL_NODES)
        packet = ip6.emit(ip6.Ipv6(origin, ip6.ALL_NODES, 58, advert, hops))
        a.receive(Frame(ip6.multicast_mac(ip6.ALL_NODES) + ROUTER_MAC + b"\x86\xdd" + packet), 2 * S)
    assert a.routes.find(ip6.octets("2001:db8:9::1")) is None
    for i in range(2000):
        prefix = ip6.octets("2001:db8::")[:6] + i.to_bytes(2, "big") + bytes(8)
        try:
            advertise(a, 2 * S, prefixes=(icmp.Prefix(prefix, 64, True, True, 3600, 1800),))
        except ValueError:
            pytest.fail("a peer made us raise")
    assert len(a._addresses) <= 17
    assert len(list(a.routes)) <= 40


def test_any_octets_are_survived(wire):
    import random

    draw = random.Random(5)
    a, b = wire.hosts
    a.start_ipv6(0)
    b.start_ipv6(0)
    listener = b.listen(80)
    a.connect(B, 80, 0).connection.write(bytes(3000))
    a.ping(B, 1, 1, 0)
    a.send_udp(bytes(3000), B, 5, 5, 0)
    wire.settle(3 * S)
    advertise(a, wire.now)
    corpus = list(wire.seen)
    assert listener.ready
    for _ in range(4000):
        octets = bytearray(draw.choice(corpus))
        for _ in range(draw.randrange(1, 4)):
            octets[draw.randrange(len(octets))] = draw.randrange(256)
        octets[:6] = MAC_B
        b.receive(Frame(bytes(octets[: draw.randrange(1, len(octets) + 1)]), trusted=draw.random() < 0.5), wire.now)
        b.transmit(wire.now)
        wire.now += MS
        b.tick(wire.now)


def test_dhcp_can_be_spoken_without_an_address():
    a = host(MAC_A)
    port = a.bind_udp(68)
    assert a.send_udp(b"discover", ip.BROADCAST_V4, 67, 68, 0, source=ip.ANY_V4) == ""
    (frame,) = a.transmit(0)
    assert frame.octets[:6] == ethernet.BROADCAST
    offer = ip.emit_udp(ip.Udp(67, 68, b"offer"), B, A)
    a.receive(Frame(MAC_A + MAC_B + b"\x08\x00" + ip.emit_ipv4(ip.Ipv4(B, A, 17, offer))), 0)
    assert port.take() == (b"offer", B, 67, A)


def test_an_unreachable_event_for_a_ping_names_who_said_so(wire):
    a, _ = wire.hosts
    a.routes.default(B)
    target = bytes((192, 0, 2, 7))
    a.ping(target, 1, 1, 0)
    wire.settle()
    quote = next(f[14:42] for f in wire.seen if f[30:34] == target)
    error = icmp.emit4(icmp.Problem(icmp.UNREACHABLE4, 1, 0, quote))
    a.receive(Frame(MAC_A + MAC_B + b"\x08\x00" + ip.emit_ipv4(ip.Ipv4(B, A, 1, error))), 0)
    assert [(e.destination, e.by, e.because) for e in a.events if isinstance(e, Undelivered)] == [
        (target, B, "host unreachable")
    ]


def test_a_new_connection_takes_the_place_of_one_in_time_wait(wire):
    a, b = wire.hosts
    listener = b.listen(80, config=Config())
    first = a.connect(B, 80, 0, source_port=5555)
    wire.settle()
    server = listener.ready.popleft()
    server.connection.close(wire.now)
    b.touch(server)
    wire.settle()
    first.connection.close(wire.now)
    a.touch(first)
    wire.settle(S)
    assert server.connection.state is State.TIME_WAIT
    second = a.connect(B, 80, wire.now, source_port=5555)
    wire.settle(2 * S)
    assert second.connection.state is State.ESTABLISHED
    assert server.connection.state is State.CLOSED


def test_nothing_that_must_be_guessed_has_a_pattern():
    a = host(MAC_A, A)
    drawn = [a.draw() for _ in range(10_000)]
    assert len(set(drawn)) > 9_980  # of 2**32: chance repeats one in a hundred runs
    assert len({y - x for x, y in pairwise(drawn)}) > 9_980
    for bit in range(32):
        assert 4_700 < sum(number >> bit & 1 for number in drawn) < 5_300
    other = Host(MAC_A, b"another secret..")
    assert [other.draw() for _ in range(10)] != drawn[:10]
