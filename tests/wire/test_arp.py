from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire import arp
from bootwire.wire.reader import WireError

mac, address = st.binary(min_size=6, max_size=6), st.binary(min_size=4, max_size=4)
messages = st.builds(arp.Message, st.integers(0, 0xFFFF), mac, address, mac, address)


def test_reads_a_request_with_ethernet_padding():
    who_has = bytes.fromhex("0001080006040001525400123456c0a80a01000000000000c0a80a02") + bytes(18)
    assert arp.parse(who_has) == arp.Message(
        arp.REQUEST, bytes.fromhex("525400123456"), bytes((192, 168, 10, 1)), bytes(6), bytes((192, 168, 10, 2))
    )


@given(messages)
def test_what_is_emitted_parses_to_the_same(message):
    assert arp.parse(arp.emit(message)) == message


@given(messages, st.integers(0, 27))
def test_every_cut_is_a_wire_error(message, size):
    with pytest.raises(WireError):
        arp.parse(arp.emit(message)[:size])


def test_other_hardware_is_refused():
    with pytest.raises(WireError, match="hardware type 6"):
        arp.parse(bytes.fromhex("00060800060400015254001234560a000001000000000000" + "0a000002"))
