from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire import ip6
from bootwire.wire.reader import WireError

address = st.binary(min_size=16, max_size=16)
chained = st.sampled_from([ip6.HOP_BY_HOP, ip6.ROUTING, ip6.DESTINATION_OPTIONS])
extension = st.tuples(chained, st.integers(0, 2)).flatmap(
    lambda kind: st.binary(min_size=6 + 8 * kind[1], max_size=6 + 8 * kind[1]).map(
        lambda body: (kind[0], bytes((kind[1],)) + body)
    )
)
fragment = st.builds(ip6.Fragment, st.integers(0, 8191).map(lambda n: n * 8), st.booleans(), st.integers(0, 2**32 - 1))
packets = st.builds(
    ip6.Ipv6,
    source=address, destination=address, protocol=st.sampled_from([6, 17, 58, 59, 200]), payload=st.binary(max_size=50),
    hop_limit=st.integers(0, 255), traffic_class=st.integers(0, 255), flow=st.integers(0, 2**20 - 1),
    extensions=st.builds(
        lambda chain, last: (*chain, *last),
        st.lists(extension, max_size=3), st.lists(fragment.map(ip6.fragment_header), max_size=1),
    ),
)  # fmt: skip


@given(packets)
def test_what_is_emitted_parses_to_the_same(packet):
    assert ip6.parse(ip6.emit(packet)) == packet


@given(packets, st.binary(max_size=20))
def test_the_padding_of_the_frame_is_dropped(packet, padding):
    assert ip6.parse(b"xx" + ip6.emit(packet) + padding, 2) == packet


@given(fragment)
def test_a_fragment_header_says_what_it_was_given(fragment):
    packet = ip6.Ipv6(ip6.ANY, ip6.ANY, 17, b"", extensions=(ip6.fragment_header(fragment),))
    assert ip6.parse(ip6.emit(packet)).fragment == fragment


@given(packets, st.data())
def test_cut_or_flipped_octets_give_a_packet_or_a_wire_error(packet, data):
    octets = bytearray(ip6.emit(packet))
    octets[data.draw(st.integers(0, len(octets) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        ip6.parse(bytes(octets[: data.draw(st.integers(0, len(octets)))]))
    except WireError as error:
        assert error.what


def test_a_chain_of_headers_without_end_is_refused():
    chain = bytes((ip6.DESTINATION_OPTIONS, 0)) + bytes(6)
    with pytest.raises(WireError, match="more than 8"):
        ip6.walk(ip6.DESTINATION_OPTIONS, chain * 5000)


def test_what_follows_a_fragment_header_is_not_walked():
    inner = bytes((17, 255)) + bytes(6)  # destination options that say they are 2 KiB long
    packet = ip6.Ipv6(ip6.ANY, ip6.ANY, ip6.DESTINATION_OPTIONS, inner)
    piece = ip6.Fragment(0, True, 1)
    octets = ip6.emit(ip6.Ipv6(ip6.ANY, ip6.ANY, packet.protocol, inner, extensions=(ip6.fragment_header(piece),)))
    assert ip6.parse(octets).payload == inner


def test_addresses_of_rfc_4291():
    mac = bytes.fromhex("34567890abcd")
    assert ip6.text(ip6.link_local(mac)) == "fe80::3656:78ff:fe90:abcd"
    assert ip6.text(ip6.solicited_node(ip6.octets("4037::1:800:200e:8c6c"))) == "ff02::1:ff0e:8c6c"
    assert ip6.multicast_mac(ip6.ALL_NODES).hex(":") == "33:33:00:00:00:01"


@pytest.mark.parametrize("text", ["", "fe80::1%eth0", "1.2.3.4", "::g", "1::2::3"])
def test_what_is_not_an_address_is_refused(text):
    with pytest.raises(WireError):
        ip6.octets(text)
