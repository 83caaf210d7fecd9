from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire import checksum, icmp
from bootwire.wire.reader import WireError

u16, u32 = st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1)
address, link = st.binary(min_size=16, max_size=16), st.just(b"") | st.binary(min_size=6, max_size=6)
echo = st.builds(icmp.Echo, st.booleans(), u16, u16, st.binary(max_size=30))
quote = st.binary(max_size=40)
messages4 = echo | st.builds(icmp.Problem, st.sampled_from([3, 5, 11, 12]), st.integers(0, 255), u32, quote)
prefixes = st.builds(icmp.Prefix, address, st.integers(0, 128), st.booleans(), st.booleans(), u32, u32)
messages6 = st.one_of(
    echo,
    st.builds(icmp.Problem, st.sampled_from([1, 2, 3, 4]), st.integers(0, 255), u32, quote),
    st.builds(icmp.NeighbourSolicit, address, link),
    st.builds(icmp.NeighbourAdvert, address, link, st.booleans(), st.booleans(), st.booleans()),
    st.builds(icmp.RouterSolicit, link),
    st.builds(
        icmp.RouterAdvert, st.integers(0, 255), u16, st.booleans(), st.booleans(), u32, u32, link, u32,
        st.lists(prefixes, max_size=3).map(tuple), st.lists(address, max_size=3).map(tuple),
    ),
)  # fmt: skip


@given(messages4)
def test_icmp_emitted_parses_to_the_same(message):
    octets = icmp.emit4(message)
    assert checksum.holds(octets)
    assert icmp.parse4(octets) == message


@given(messages6, address, address)
def test_icmpv6_emitted_parses_to_the_same(message, source, destination):
    octets = icmp.emit6(message, source, destination)
    assert checksum.holds(octets, checksum.pseudo(source, destination, icmp.PROTOCOL6, len(octets)))
    assert icmp.parse6(octets) == message


@given(messages4, messages6, st.data())
def test_cut_or_flipped_octets_give_a_message_or_a_wire_error(four, six, data):
    for octets, parse in ((icmp.emit4(four), icmp.parse4), (icmp.emit6(six, bytes(16), bytes(16)), icmp.parse6)):
        bent = bytearray(octets)
        bent[data.draw(st.integers(0, len(bent) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        cut = bytes(bent[: data.draw(st.integers(0, len(bent)))])
        try:
            parse(cut)
        except WireError as error:
            assert 0 <= error.at <= len(cut)


def test_a_neighbour_discovery_option_of_length_zero_is_refused_not_walked_for_ever():
    solicit = icmp.emit6(icmp.NeighbourSolicit(bytes(16), b"\x02" * 6), bytes(16), bytes(16))
    with pytest.raises(WireError, match="wrong length"):
        icmp.parse6(solicit[:25] + b"\0" + solicit[26:])


def test_an_unknown_type_survives():
    octets = icmp.emit4(icmp.Other(13, 0, b"timestamp..."))
    assert icmp.parse4(octets) == icmp.Other(13, 0, b"timestamp...")
