"""The routing table, the neighbour cache, reassembly and frames that a link cuts, each alone."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.engine import S
from bootwire.engine.ip.fragments import DATAGRAMS_MAX, LIFETIME, Reassembly
from bootwire.engine.ip.frame import Frame, complete, datagrams
from bootwire.engine.ip.neighbours import ENTRIES_MAX, FRESH, WAITING_MAX, Ask, Neighbours
from bootwire.engine.ip.routes import Routes
from bootwire.wire import checksum, ethernet, ip, ip6, tcp

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
MAC = b"\2\0\0\0\0\1"

# --- routes


def v4(text: str) -> bytes:
    return IPv4Address(text).packed


def test_the_longest_prefix_wins_and_then_the_metric():
    routes = Routes()
    routes.default(v4("10.0.0.254"))
    routes.default(v4("10.0.0.253"), metric=5)
    routes.add(v4("10.0.0.0"), 24)
    routes.add(v4("10.0.0.128"), 25, v4("10.0.0.3"))
    assert routes.find(v4("10.0.0.200")).gateway == v4("10.0.0.3")
    assert routes.find(v4("10.0.0.100")).gateway is None
    assert routes.find(v4("8.8.8.8")).gateway == v4("10.0.0.254")
    assert routes.delete(bytes(4), 0, metric=0)
    assert routes.find(v4("8.8.8.8")).gateway == v4("10.0.0.253")
    assert routes.find(bytes(16)) is None
    assert [(r.prefix, r.metric) for r in routes] == [(25, 0), (24, 0), (0, 5)]


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)), max_size=20), st.integers(0, 2**32 - 1))
def test_finds_what_a_search_over_all_networks_finds(networks, target):
    routes = Routes()
    for number, prefix in networks:
        routes.add(number.to_bytes(4, "big"), prefix)
    fits = [IPv4Network((n, p), strict=False) for n, p in networks]
    fits = [n for n in fits if IPv4Address(target) in n]
    best = max((n.prefixlen for n in fits), default=None)
    found = routes.find(target.to_bytes(4, "big"))
    assert (found.prefix if found else None) == best


def test_what_is_no_route_is_our_own_mistake():
    with pytest.raises(ValueError, match="does not fit"):
        Routes().add(A, 33)
    with pytest.raises(ValueError, match="does not fit"):
        Routes().add(A, 24, bytes(16))


# --- neighbours


def test_packets_wait_for_the_answer_and_the_newest_are_kept():
    n = Neighbours()
    for i in range(WAITING_MAX + 5):
        assert n.resolve(A, i, 0) is None
    assert n.asks == [Ask(A, None)]  # once, however many wait
    assert n.heard(A, MAC, 1) == list(range(5, WAITING_MAX + 5))
    assert n.resolve(A, "next", 2) == MAC


def test_questions_are_a_second_apart_and_end():
    n = Neighbours()
    n.resolve(A, "packet", 0)
    times = []
    while n.deadline is not None:
        times.append(n.deadline)
        lost = n.tick(n.deadline)
    assert times == [S, 2 * S, 3 * S]
    assert len(n.asks) == 3
    assert lost == ["packet"]
    assert n.table() == []


def test_an_old_answer_is_used_while_it_is_asked_for_again():
    n = Neighbours()
    n.heard(A, MAC, 0, create=True)
    assert n.resolve(A, "x", FRESH) == MAC
    assert n.asks == []
    assert n.resolve(A, "x", FRESH + 1) == MAC
    assert n.asks == [Ask(A, MAC)]


def test_strangers_do_not_fill_the_table():
    n = Neighbours()
    for i in range(10 * ENTRIES_MAX):
        n.heard(i.to_bytes(4, "big"), MAC, 0)
        n.heard(i.to_bytes(4, "little"), MAC, 0, create=True)
    assert len(n.table()) == ENTRIES_MAX


# --- fragments


@given(st.integers(1, 4000), st.integers(1, 60), st.randoms(use_true_random=False))
def test_pieces_in_any_order_make_the_whole(size, step, order):
    data = random.Random(size).randbytes(size)
    pieces = [(at, at + step * 8 < size, data[at : at + step * 8]) for at in range(0, size, step * 8)]
    if len(pieces) > 128:
        return
    order.shuffle(pieces)
    r = Reassembly()
    for piece in pieces[:-1]:
        assert r.put("key", *piece, 0) is None
        assert r.put("key", *piece, 0) is None  # an exact repetition
    assert r.put("key", *pieces[-1], 0) == data
    assert len(r) == 0


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ((8, True, bytes(16)), "overlapping fragment"),
        ((0, True, bytes(range(16))), "overlapping fragment"),
        ((16, True, bytes(9)), "fragment not a multiple of 8 octets"),
        ((16, True, b""), "fragment not a multiple of 8 octets"),
        ((65_528, False, bytes(80)), "fragment beyond 64 KiB"),
    ],
)
def test_a_bad_piece_spoils_the_datagram(second, why):
    r = Reassembly()
    assert r.put("key", 0, True, bytes(16), 0) is None
    assert r.put("key", *second, 0) == why
    assert r.put("key", 16, False, bytes(8), 0) == "fragment of a spoiled datagram"


def test_memory_and_time_are_bounded():
    r = Reassembly()
    for i in range(1000):
        r.put(i, 0, True, bytes(1024), i)
    assert len(r) == DATAGRAMS_MAX
    assert r.tick(1000 + LIFETIME) == DATAGRAMS_MAX
    assert r.deadline is None
    pieces = [r.put("tiny", 8 * i, True, bytes(8), 0) for i in range(200)]
    assert "too many fragments" in pieces


# --- frames


@pytest.mark.parametrize("tag", [b"", b"\x81\x00\x00\x05"], ids=["plain", "tagged"])
@pytest.mark.parametrize("version", [4, 6])
def test_a_link_cuts_a_super_segment_into_frames_whose_checksums_hold(tag, version):
    payload = random.Random(2).randbytes(5000)
    segment = tcp.Segment(1, 2, 2**32 - 1000, 5, tcp.ACK | tcp.PSH | tcp.FIN, 100, payload)
    size = 20 + len(payload)
    if version == 4:
        octets = tcp.emit_partial(segment, checksum.pseudo(A, B, 6, size))
        packet, network = ip.emit_ipv4(ip.Ipv4(A, B, 6, octets, identification=0xFFFF)), 20
    else:
        octets = tcp.emit_partial(segment, checksum.pseudo(bytes(16), bytes(16), 6, size))
        packet, network = ip6.emit(ip6.Ipv6(bytes(16), bytes(16), 6, octets)), 40
    kind = (0x0800, 0x86DD)[version == 6].to_bytes(2, "big")
    frame = Frame(MAC + MAC + tag + kind + packet, 1448, 14 + len(tag) + network)
    got, flags, numbers = b"", [], []
    for piece in complete(frame):
        assert (piece.segment, piece.checksum_at) == (0, 0)
        inner = ethernet.parse(piece.octets).payload
        if version == 4:
            whole = ip.parse_ipv4(inner)
            numbers.append(whole.identification)
            start = checksum.pseudo(A, B, 6, len(whole.payload))
        else:
            whole = ip6.parse(inner)
            start = checksum.pseudo(bytes(16), bytes(16), 6, len(whole.payload))
        assert checksum.holds(whole.payload, start)
        part = tcp.parse(whole.payload)
        assert part.seq == (segment.seq + len(got)) % 2**32
        got += part.payload
        flags.append(part.flags)
    assert got == payload
    assert flags == [tcp.ACK] * 3 + [segment.flags]
    assert numbers in ([], [0xFFFF, 0, 1, 2])


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tag", [b"", b"\x81\x00\x00\x05"])
def test_merged_datagrams_come_apart(version, tag):
    payload = random.Random(3).randbytes(2500)
    one, two = (A, B) if version == 4 else (ip6.octets("fe80::1"), ip6.octets("fe80::2"))
    inner = ip.emit_udp(ip.Udp(69, 2000, payload), one, two)
    outer = (
        ip.emit_ipv4(ip.Ipv4(one, two, ip.UDP, inner)) if version == 4 else ip6.emit(ip6.Ipv6(one, two, ip.UDP, inner))
    )
    kind = (ethernet.IPV4 if version == 4 else ethernet.IPV6).to_bytes(2, "big")
    merged = Frame(MAC + MAC + tag + kind + outer, segment=1000, checksum_at=14 + len(tag) + len(outer) - len(inner))
    for cut in (datagrams, complete):
        got = []
        for piece in cut(merged):
            at = 14 + len(tag)
            packet = ip.parse_ipv4(piece.octets, at) if version == 4 else ip6.parse(piece.octets, at)
            got.append(ip.parse_udp(packet.payload, one, two, verify=cut is complete).payload)
            assert (piece.segment, piece.trusted) == (0, cut is datagrams)
        assert [len(data) for data in got] == [1000, 1000, 500]
        assert b"".join(got) == payload


@given(st.binary(max_size=120), st.integers(0, 2000))
def test_anything_merged_comes_apart_or_stays_as_it_is(octets, segment):
    frame = Frame(octets, segment)
    assert all(piece is frame or not piece.segment for piece in datagrams(frame))
