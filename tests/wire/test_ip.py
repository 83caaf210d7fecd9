"""IPv4 packets, UDP datagrams and their checksums."""

from __future__ import annotations

import contextlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire import ip
from bootwire.wire.ip import Ipv4, Udp
from bootwire.wire.reader import WireError

V4 = st.binary(min_size=4, max_size=4)
OPTIONS = st.integers(0, 10).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words))
PACKETS = st.builds(
    Ipv4, V4, V4, st.integers(0, 255), st.binary(max_size=64), st.integers(0, 255), st.integers(0, 255),
    st.integers(0, 0xFFFF), st.integers(0, 7), st.integers(0, 8191), OPTIONS,
)  # fmt: skip
PORTS = st.integers(0, 0xFFFF)
DATAGRAMS = st.builds(Udp, PORTS, PORTS, st.binary(max_size=64))
A, B = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])


@given(PACKETS, st.binary(max_size=20))
def test_a_packet_survives_the_wire_and_its_padding_does_not(packet: Ipv4, padding: bytes) -> None:
    assert ip.parse_ipv4(ip.emit_ipv4(packet) + padding) == packet


@given(DATAGRAMS, V4, V4)
def test_a_datagram_survives_the_wire(datagram: Udp, source: bytes, destination: bytes) -> None:
    assert ip.parse_udp(ip.emit_udp(datagram, source, destination), source, destination) == datagram


@given(PACKETS)
def test_a_packet_cut_anywhere_is_refused(packet: Ipv4) -> None:
    octets = ip.emit_ipv4(packet)
    for end in range(len(octets)):
        with pytest.raises(WireError):
            ip.parse_ipv4(octets[:end])


@given(st.binary(max_size=80), st.booleans())
def test_any_octets_are_a_value_or_a_wire_error(data: bytes, verify: bool) -> None:
    for parse in (ip.parse_ipv4, lambda d: ip.parse_udp(d, A, B, verify=verify)):
        with contextlib.suppress(WireError):
            parse(data)


@given(PACKETS, st.data())
def test_one_flipped_bit_in_a_header_is_noticed(packet: Ipv4, data: st.DataObject) -> None:
    octets = bytearray(ip.emit_ipv4(packet))
    bit = data.draw(st.integers(0, (20 + len(packet.options)) * 8 - 1))
    octets[bit // 8] ^= 1 << bit % 8
    with pytest.raises(WireError):
        ip.parse_ipv4(bytes(octets))


def test_a_wrong_udp_checksum_is_refused_unless_hardware_was_to_make_it() -> None:
    octets = bytearray(ip.emit_udp(Udp(67, 68, b"hello"), A, B))
    octets[6] ^= 1
    with pytest.raises(WireError, match="UDP checksum"):
        ip.parse_udp(bytes(octets), A, B)
    assert ip.parse_udp(bytes(octets), A, B, verify=False).payload == b"hello"


def test_a_datagram_without_checksum_is_taken() -> None:
    assert ip.parse_udp(bytes.fromhex("00440043000a0000") + b"hi", A, B) == Udp(68, 67, b"hi")


@given(st.binary(max_size=100))
def test_the_checksum_is_the_one_of_rfc_1071(data: bytes) -> None:
    total = 0
    for i in range(0, len(data), 2):
        total += int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert ip.checksum(data) == ~total & 0xFFFF


def test_the_example_of_rfc_1071_section_3() -> None:
    assert ip.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


def test_what_does_not_fit_is_our_own_mistake_and_said() -> None:
    with pytest.raises(WireError, match="payload"):
        ip.emit_ipv4(Ipv4(A, B, 17, bytes(65_516)))
    with pytest.raises(WireError, match="options"):
        ip.emit_ipv4(Ipv4(A, B, 17, b"", options=b"\1"))
    with pytest.raises(WireError, match="payload"):
        ip.emit_udp(Udp(1, 2, bytes(65_528)), A, B)


@given(V4)
def test_an_address_survives_its_text(octets: bytes) -> None:
    assert ip.v4_text(octets) == str(ipaddress.IPv4Address(octets))
    assert ip.v4_octets(ip.v4_text(octets)) == octets


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.-4", "1.2.3.٤", "1.2.3.²", "1..3.4"]
)
def test_what_is_not_an_ipv4_address_is_refused(text: str) -> None:
    with pytest.raises(WireError):
        ip.v4_octets(text)
