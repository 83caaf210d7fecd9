from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire import checksum, tcp
from bootwire.wire.reader import WireError

u16, u32 = st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1)

options = st.one_of(
    st.builds(
        tcp.Options,
        mss=st.none() | u16,
        scale=st.none() | st.integers(0, 255),
        sack_permitted=st.booleans(),
        timestamps=st.none() | st.tuples(u32, u32),
        unknown=st.lists(st.tuples(st.integers(30, 255), st.binary(max_size=6)), max_size=2).map(tuple),
    ),
    st.builds(
        tcp.Options,
        timestamps=st.none() | st.tuples(u32, u32),
        sack=st.lists(st.tuples(u32, u32), max_size=3).map(tuple),
    ),
)
segments = st.builds(
    tcp.Segment,
    source=u16, destination=u16, seq=u32, ack=u32, flags=st.integers(0, 255), window=u16,
    payload=st.binary(max_size=40), options=options, urgent=u16,
)  # fmt: skip


# The SYN of connect() to 127.0.0.1 on Linux 6.18, read from the loopback interface (MTU 65536) with a packet socket
LINUX_SYN = bytes.fromhex("9d76bd9d4167630400000000a002ffd7fe3000000204ffd70402080a1f69505b000000000103030a")


def test_reads_the_options_of_a_linux_syn():
    syn = tcp.parse(LINUX_SYN)
    assert (syn.source, syn.destination, syn.flags, syn.window) == (40310, 48541, tcp.SYN, 65495)
    assert syn.options == tcp.Options(mss=65495, scale=10, sack_permitted=True, timestamps=(0x1F69505B, 0))
    assert syn.length == 1


@given(segments)
def test_what_is_emitted_parses_to_the_same(segment):
    assert tcp.parse(tcp.emit(segment, 0)) == segment


@given(segments, u16)
def test_the_checksum_holds_over_the_pseudo_header(segment, start):
    assert checksum.holds(tcp.emit(segment, start), start)


@given(segments, u16)
def test_a_link_completes_a_partial_checksum_by_summing_from_the_header(segment, start):
    octets = tcp.emit_partial(segment, start)
    field = tcp.CHECKSUM_AT
    filled = octets[:field] + checksum.compute(octets).to_bytes(2, "big") + octets[field + 2 :]
    assert checksum.holds(filled, start)


@given(segments, st.data())
def test_cut_or_flipped_octets_give_a_segment_or_a_wire_error(segment, data):
    octets = bytearray(tcp.emit(segment, 0))
    octets[data.draw(st.integers(0, len(octets) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = bytes(octets[: data.draw(st.integers(0, len(octets)))])
    try:
        assert isinstance(tcp.parse(cut), tcp.Segment)
    except WireError:
        assert len(cut) < len(octets) or len(octets) > 20 or cut[12] >> 4 != 5


@pytest.mark.parametrize("length", [0, 1, 41])
def test_an_option_length_that_lies_is_refused(length):
    header = bytearray(tcp.emit(tcp.Segment(1, 2, 3, 4, tcp.ACK, 5, options=tcp.Options(unknown=((77, b"ab"),))), 0))
    header[21] = length
    with pytest.raises(WireError, match=f"option 77 of length {length}"):
        tcp.parse(bytes(header))


def test_parses_in_place_without_the_octets_around_it():
    inner = tcp.emit(tcp.Segment(1, 2, 3, 4, tcp.ACK, 5, b"payload"), 0)
    assert tcp.parse(b"x" * 34 + inner + b"padding", 34, 34 + len(inner)).payload == b"payload"


def test_options_that_do_not_fit_are_our_own_mistake():
    with pytest.raises(ValueError, match="48 octets"):
        tcp.size_of(tcp.Options(sack=((1, 2),) * 4, timestamps=(1, 2)))
