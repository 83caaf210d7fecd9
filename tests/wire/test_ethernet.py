"""Ethernet frames and MAC addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire import ethernet
from bootwire.wire.ethernet import SERVICE_VLAN, VLAN, Frame, Tag
from bootwire.wire.reader import WireError

MACS = st.binary(min_size=6, max_size=6)
TAGS = st.builds(Tag, st.sampled_from([VLAN, SERVICE_VLAN]), st.integers(0, 0xFFFF))
TYPES = st.integers(0, 0xFFFF).filter(lambda n: n not in (VLAN, SERVICE_VLAN))
FRAMES = st.builds(Frame, MACS, MACS, TYPES, st.binary(max_size=64), st.lists(TAGS, max_size=4).map(tuple))


@given(FRAMES)
def test_a_frame_survives_the_wire(frame: Frame) -> None:
    assert ethernet.parse(ethernet.emit(frame)) == frame


@given(st.binary(max_size=64))
def test_any_octets_are_a_frame_or_a_wire_error(data: bytes) -> None:
    try:
        frame = ethernet.parse(data)
    except WireError:
        return
    assert ethernet.emit(frame) == data


@given(FRAMES)
def test_a_frame_cut_in_its_header_is_refused(frame: Frame) -> None:
    octets = ethernet.emit(frame)
    for end in range(len(octets) - len(frame.payload)):
        with pytest.raises(WireError):
            ethernet.parse(octets[:end])


def test_tags_are_read_outermost_first() -> None:
    octets = bytes.fromhex("ffffffffffff525400123456 88a8 0064 8100 a005 0800 45")
    frame = ethernet.parse(octets)
    assert frame.tags == (Tag(SERVICE_VLAN, 100), Tag(VLAN, 0xA005))
    assert frame.tags[1].vlan == 5
    assert (frame.ethertype, frame.payload) == (ethernet.IPV4, b"\x45")


@pytest.mark.parametrize("text", ["52:54:00:12:34:56", "52-54-00-12-34-56", "52:54:0:12:34:56", "52:54:00:AB:34:56"])
def test_a_mac_is_read_with_either_separator(text: str) -> None:
    assert ethernet.mac_octets(text)[:2] == b"\x52\x54"
    assert len(ethernet.mac_octets(text)) == 6


@pytest.mark.parametrize("text", ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "5254:00:12:34:56", "x2:54:00:12:34:56",
                                  "52:54:00:12:34: 6", "52::00:12:34:56", "٥2:54:00:12:34:56"])  # fmt: skip
def test_what_is_not_a_mac_is_refused(text: str) -> None:
    with pytest.raises(WireError):
        ethernet.mac_octets(text)


@given(MACS)
def test_a_mac_survives_its_text(mac: bytes) -> None:
    assert ethernet.mac_octets(ethernet.mac_text(mac)) == mac
