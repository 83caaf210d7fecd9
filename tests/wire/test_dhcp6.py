from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire import dhcp6
from bootwire.wire.reader import WireError

options = st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=20)), max_size=6).map(tuple)
address = st.binary(min_size=16, max_size=16)
messages = st.one_of(
    st.builds(dhcp6.Message, st.integers(0, 11) | st.integers(14, 255), st.integers(0, 2**24 - 1), options),
    st.builds(dhcp6.Relay, st.sampled_from([12, 13]), st.integers(0, 255), address, address, options),
)
u32 = st.integers(0, 2**32 - 1)
status = st.none() | st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=10))
associations = st.builds(
    dhcp6.Association, u32, u32, u32,
    st.lists(st.builds(dhcp6.Address, address, u32, u32, status), max_size=3).map(tuple), status,
)  # fmt: skip


@given(messages)
def test_what_is_emitted_parses_to_the_same(message):
    assert dhcp6.parse(dhcp6.emit(message)) == message


@given(associations)
def test_an_association_emitted_parses_to_the_same(association):
    assert dhcp6.parse_association(dhcp6.emit_association(association)) == association


@given(messages, associations, st.data())
def test_cut_or_flipped_octets_give_a_value_or_a_wire_error(message, association, data):
    for octets, read in (
        (dhcp6.emit(message), dhcp6.parse),
        (dhcp6.emit_association(association), dhcp6.parse_association),
    ):
        bent = bytearray(octets)
        bent[data.draw(st.integers(0, len(bent) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        try:
            read(bytes(bent[: data.draw(st.integers(0, len(bent)))]))
        except WireError as error:
            assert error.at >= 0


def test_an_inner_option_does_not_see_past_the_one_that_holds_it():
    inside = dhcp6.emit_options(((dhcp6.IA_ADDRESS, bytes(24)),))
    lying = bytes(12) + inside[:3] + b"\xff" + inside[4:]  # an IA address that says it is 255 octets long
    message = dhcp6.emit(dhcp6.Message(dhcp6.REPLY, 1, ((dhcp6.IA_NA, lying), (99, bytes(300)))))
    value = dhcp6.parse(message).option(dhcp6.IA_NA)
    with pytest.raises(WireError, match="length 255"):
        dhcp6.parse_association(value)


def test_options_without_end_are_refused():
    with pytest.raises(WireError, match="more than 512"):
        dhcp6.parse_options(b"\0\1\0\0" * 10_000)


def test_names_and_parameters():
    assert dhcp6.domains(b"\x03lan\x07example\0\x01a\0") == (b"lan.example", b"a")
    assert dhcp6.parameters(b"\0\x02-s\0\x00") == (b"-s", b"")


@pytest.mark.parametrize("value", [b"\x40" + bytes(64), b"\x03la", b"\x03lan", b"\xc0\x00"])
def test_names_that_lie_are_refused(value):
    with pytest.raises(WireError):
        dhcp6.domains(value)


def test_identifiers():
    assert dhcp6.duid_from_mac(b"\2\0\0\0\0\1").hex() == "00030001020000000001"
    assert dhcp6.duid_from_uuid(bytes(range(16))).hex() == "0004" + bytes(range(16)).hex()
