"""Reports of bare machines: octet by octet, any value, and what hostile octets come to."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire import report
from bootwire.wire.reader import WireError
from bootwire.wire.report import Acknowledgement, Item, Report, emit, parse

u8 = st.integers(0, 2**8 - 1)
u16 = st.integers(0, 2**16 - 1)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
text = st.binary(max_size=40)
items: st.SearchStrategy[Item] = st.one_of(
    st.builds(report.Program, text),
    st.builds(report.Mac, st.binary(min_size=1, max_size=16)),
    st.builds(report.Pxe, u16, st.tuples(u8, u8, u8)),
    st.builds(report.Link, u32, u16, u16, text),
    st.builds(report.Nic, u8, u8, u16, u16, st.tuples(u8, u8, u8), u16, u16, u16),
    st.builds(report.Address, st.binary(min_size=4, max_size=4), st.binary(min_size=4, max_size=4)),
    st.builds(report.Packet, u8, text),
    st.builds(report.Cpuid, u32, u32, u32, u32, u32, u32),
    st.builds(report.Register, u32, u64),
    st.builds(report.CpuMode, u8, st.booleans()),
    st.builds(report.Memory, st.lists(st.tuples(u64, u64, u32), max_size=3).map(tuple)),
    st.builds(report.Disk, u32, u16, u16, u64, u32, u16, u16, text),
    st.builds(report.Label, u32, u8, st.sampled_from((b"", bytes(4), bytes(16)))),
    st.builds(report.Partition, u32, u32, u8, u64, u64, st.binary(min_size=1, max_size=1)),
    st.builds(
        report.Partition, u32, u32, u8, u64, u64, st.binary(min_size=16, max_size=16),
        st.binary(min_size=16, max_size=16), text,
    ),
    st.builds(report.Smbios, text),
    st.builds(report.Note, text),
    st.builds(report.Unknown, st.integers(17, 2**16 - 1), text),
)  # fmt: skip
bodies = st.lists(items, max_size=8).map(tuple)
messages = st.one_of(
    st.builds(kind, u32, u8, u16, bodies, st.integers(0, 3), st.integers(4, report.PARTS))
    for kind in (Report, Acknowledgement)
)


@given(messages)
def test_what_is_written_is_read_again(message: report.Message):
    assert parse(emit(message)) == message


def test_a_report_octet_by_octet():
    sent = Report(0x01020304, report.BIOS, 0, (report.Mac(b"\x52\x54\0\x77\0\x01"), report.Pxe(0x0201, (3, 1, 0))))
    octets = "42575250 01 01 00 01 04030201 01 00 0000 2700 0000 0200 0600 525400770001 0300 0500 0102030100"
    assert emit(sent) == bytes.fromhex(octets)


@given(st.binary(max_size=1600))
def test_any_octets_are_read_or_refused(octets: bytes):
    with contextlib.suppress(WireError):
        parse(octets)


@given(messages, st.data())
def test_a_report_with_a_wrong_octet_is_read_or_refused(message: report.Message, data: st.DataObject):
    octets = bytearray(emit(message))
    octets[data.draw(st.integers(0, len(octets) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(WireError):
        again = parse(bytes(octets))
        assert parse(emit(again)) == again


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda b: b[:19], "truncated head"),
        (lambda b: b"XXXX" + b[4:], "magic"),
        (lambda b: b[:4] + b"\2" + b[5:], "version 2"),
        (lambda b: b[:5] + b"\3" + b[6:], "kind 3"),
        (lambda b: b[:6] + b"\1\1" + b[8:], "part 1 of 1"),
        (lambda b: b[:6] + b"\0\x11" + b[8:], "part 0 of 17"),
        (lambda b: b + b"\0", "say they are"),
        (lambda b: b[:16] + bytes((len(b) - 1, 0)) + b[18:-1], "reaches beyond the end"),
    ],
)
def test_a_damaged_report_is_refused_with_the_reason(change, why: str):
    octets = emit(Report(1, report.BIOS, 0, (report.Program(b"hello 1"),)))
    with pytest.raises(WireError, match=why):
        parse(change(octets))


def test_an_item_without_its_types_shape_is_kept_and_loses_nothing_else():
    odd = Report(1, report.BIOS, 0, (report.Unknown(8, b"short"), report.Program(b"hello 1")))
    assert parse(emit(odd)) == odd


def test_what_has_no_room_is_not_written():
    with pytest.raises(ValueError, match="1498 octets"):
        emit(Report(1, report.BIOS, 0, (report.Note(bytes(1474)),)))
