from __future__ import annotations

import pytest

from bootwire.engine.ip import Frame
from bootwire.preboot.nic import Statistics, _received, _vnet_header, cable, random_mac
from bootwire.wire import checksum, ip, tcp

A, B, MAC = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)), b"\2\0\0\0\0\1"


def super_segment() -> Frame:
    segment = tcp.Segment(1, 2, 3, 4, tcp.ACK, 5, bytes(5000), tcp.Options(timestamps=(1, 2)))
    octets = tcp.emit_partial(segment, checksum.pseudo(A, B, 6, 5032))
    return Frame(MAC + MAC + b"\x08\x00" + ip.emit_ipv4(ip.Ipv4(A, B, 6, octets)), 1448, 34)


def test_the_virtio_header_says_where_the_checksum_goes_and_how_to_cut():
    # flags NEEDS_CSUM, TCPv4, 66 octets of headers, 1448 a piece, checksum 16 octets into the header at 34
    assert _vnet_header(super_segment()).hex() == "0101" + "4200" + "a805" + "2200" + "1000"
    assert _vnet_header(Frame(b"x" * 60)) == bytes(10)


def test_what_is_sent_with_a_virtio_header_is_received_as_it_was():
    frame = super_segment()
    got = _received(_vnet_header(frame) + frame.octets, Statistics())
    assert got == Frame(frame.octets, 1448, 34, trusted=True)


@pytest.mark.parametrize("data", [b"", bytes(10)])
def test_an_empty_frame_is_none(data):
    assert _received(data, Statistics()) is None


def test_a_cable_carries_frames_both_ways_and_counts_them():
    left, right = cable(MAC, b"\2\0\0\0\0\2")
    assert right.receive() is None
    assert left.transmit(super_segment())
    assert right.receive() == Frame(super_segment().octets, 1448, 34, trusted=True)
    assert right.transmit(Frame(b"y" * 60))
    assert left.receive() == Frame(b"y" * 60)
    assert (left.statistics.sent, left.statistics.received, left.statistics.received_octets) == (1, 1, 60)
    right.close()
    assert not left.transmit(Frame(b"z" * 60))
    assert left.statistics.lost == 1
    left.close()


def test_random_addresses_are_local_and_unicast():
    made = {random_mac() for _ in range(100)}
    assert len(made) == 100
    assert {mac[0] & 3 for mac in made} == {2}
