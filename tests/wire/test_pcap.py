"""Captures written and read: both formats, both byte orders, every resolution, and damage of every kind."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire import pcap
from bootwire.wire.pcap import Packet, read
from bootwire.wire.reader import WireError

PACKETS = st.builds(
    lambda at, data, more: Packet(at, data, len(data) + more),
    st.integers(0, 2**32 * 10**9 - 1),
    st.binary(max_size=80),
    st.integers(0, 100),
)


def written(packets: list[Packet], *, nanoseconds: bool = True) -> bytes:
    records = [pcap.record(p.at, p.data, p.size, nanoseconds=nanoseconds) for p in packets]
    return pcap.file_header(nanoseconds=nanoseconds) + b"".join(records)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    total = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + total + body + total


def section(order: str = "<", options: bytes = b"") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1) + options, order)


def interface(order: str = "<", *, link: int = 1, snap: int = 0, options: bytes = b"") -> bytes:
    return block(1, struct.pack(order + "HHI", link, 0, snap) + options, order)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def enhanced(ticks: int, data: bytes, order: str = "<", *, number: int = 0, options: bytes = b"") -> bytes:
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data) + 5)
    return block(6, head + data + bytes(-len(data) % 4) + options, order)


def in_pieces(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def until_damage(data: bytes) -> tuple[list[Packet], str]:
    """The packets before the damage, and what is said of it."""
    found: list[Packet] = []
    try:
        found.extend(read([data]))
    except WireError as error:
        return found, str(error)
    return found, ""


# --- pcap -------------------------------------------------------------------------------------------------------


@given(st.lists(PACKETS, max_size=5), st.integers(1, 50))
def test_what_was_written_is_read_whatever_the_chunks(packets: list[Packet], size: int) -> None:
    assert list(read(in_pieces(written(packets), size))) == packets


@given(PACKETS)
def test_microseconds_lose_what_is_below_them(packet: Packet) -> None:
    (found,) = read([written([packet], nanoseconds=False)])
    assert found.at == packet.at // 1000 * 1000


@pytest.mark.parametrize(("magic", "at"), [(0xA1B2C3D4, 1_000_007_000), (0xA1B23C4D, 1_000_000_007)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_orders_and_both_resolutions_are_read(order: str, magic: int, at: int) -> None:
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 0x1400_0000 | pcap.RAW_IP)  # with an FCS length
    data = head + struct.pack(order + "IIII", 1, 7, 3, 9) + b"abc"
    assert list(read([data])) == [Packet(at, b"abc", 9, pcap.RAW_IP)]


def test_a_file_without_packets_is_a_file() -> None:
    assert list(read([pcap.file_header()])) == []


def test_a_giant_packet_is_cut_when_written() -> None:
    (found,) = read([pcap.file_header() + pcap.record(0, bytes(300_000), 300_000)])
    assert (len(found.data), found.size) == (pcap.RECORD_LIMIT, 300_000)


@pytest.mark.parametrize("kept", [pcap.RECORD_LIMIT + 1, 0xFFFFFFFF])
def test_a_record_too_long_to_be_true_is_refused_after_the_good_ones(kept: int) -> None:
    good = Packet(5, b"good", 4)
    found, error = until_damage(written([good]) + struct.pack("<IIII", 0, 0, kept, kept) + bytes(100))
    assert found == [good]
    assert f"record of {kept} octets" in error


@pytest.mark.parametrize("data", [b"", b"\xa1\xb2", b"GIF89a, surely", pcap.file_header()[:23]])
def test_what_is_not_a_capture_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        list(read([data]))


def test_another_version_is_refused() -> None:
    with pytest.raises(WireError, match=r"pcap version 3\.4"):
        list(read([struct.pack("<IHHiIII", 0xA1B2C3D4, 3, 4, 0, 0, 0, 1)]))


# --- pcapng -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_section_with_options_interfaces_and_packets(order: str) -> None:
    data = (
        section(order, option(4, b"a program", order))
        + interface(order, link=pcap.ETHERNET)
        + interface(order, link=pcap.RAW_IP, options=option(2, b"eth0", order) + option(9, b"\x09", order))
        + block(5, bytes(20), order)  # statistics
        + enhanced(1_700_000_000_000_001, b"in microseconds", order, options=option(2, bytes(4), order))
        + block(0x0BAD, bytes(8), order)  # unknown
        + enhanced(1_700_000_000_000_000_001, b"in nanoseconds", order, number=1)
    )
    assert list(read([data])) == [
        Packet(1_700_000_000_000_001_000, b"in microseconds", 20, pcap.ETHERNET, 0),
        Packet(1_700_000_000_000_000_001, b"in nanoseconds", 19, pcap.RAW_IP, 1),
    ]


@pytest.mark.parametrize(("resolution", "ticks", "at"), [
    (b"\x03", 1_500, 1_500_000_000), (b"\x8a", 1536, 1_500_000_000), (b"\x00", 2, 2_000_000_000),
    (b"\x7f", 10**19, 0), (b"\xff", 2**64 - 1, 0),
])  # fmt: skip
def test_a_clock_of_any_resolution(resolution: bytes, ticks: int, at: int) -> None:
    (found,) = read([section() + interface(options=option(9, resolution)) + enhanced(ticks, b"x")])
    assert found.at == at


def test_a_clock_with_an_offset() -> None:
    described = interface(options=option(14, struct.pack("<q", 100)))
    (found,) = read([section() + described + enhanced(1, b"x")])
    assert found.at == 100_000_001_000


def test_a_simple_packet_has_no_time_and_is_cut_at_the_snap_length() -> None:
    data = section() + interface(snap=6) + block(3, struct.pack("<I", 11) + b"twelve octets"[:6])
    assert list(read([data])) == [Packet(0, b"twelve", 11)]


@pytest.mark.parametrize("order", ["<", ">"])
def test_an_old_packet_block_counts_dropped_packets_beside_its_interface(order: str) -> None:
    body = struct.pack(order + "HHIIII", 0, 7, 0, 5_000_000, 3, 9) + b"old\0"
    assert list(read([section(order) + interface(order) + block(2, body, order)])) == [Packet(5 * 10**9, b"old", 9)]


def test_a_second_section_may_have_the_other_order_and_its_own_interfaces() -> None:
    first = section("<") + interface("<") + enhanced(1, b"one", "<")
    second = section(">") + interface(">", link=pcap.RAW_IP) + enhanced(2, b"two", ">")
    assert [(p.data, p.link) for p in read([first + second])] == [(b"one", pcap.ETHERNET), (b"two", pcap.RAW_IP)]


@pytest.mark.parametrize(("tail", "what"), [
    (struct.pack("<III", 6, 0, 0), "block of 0 octets"),
    (struct.pack("<III", 5, 13, 0), "block of 13 octets"),
    (struct.pack("<III", 5, 0xFFFFFFFC, 0), "truncated block"),
    (enhanced(1, b"x", number=7), "interface 7, which is not described"),
    (block(6, struct.pack("<IIIII", 0, 0, 0, 200, 200) + bytes(8)), "packet of 200 octets"),
    (block(6, struct.pack("<IIIII", 0, 0, 0, 2**31, 9) + bytes(8)), "packet of 2147483648 octets"),
    (block(6, bytes(16)), "truncated packet block"),
    (block(3, b""), "truncated packet block"),
    (block(1, bytes(4)), "interface description of 4 octets"),
    (interface(options=bytes(70_000)), "description of 70020 octets"),
    (block(5, bytes(8))[:-4] + bytes(4), "ends otherwise"),
    (b"\x0a\x0d\x0d\x0a" + bytes(12), "without byte-order mark"),
    (block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 2, 0, -1)), "pcapng version 2.0"),
])  # fmt: skip
def test_damage_is_named_after_the_good_packets(tail: bytes, what: str) -> None:
    found, error = until_damage(section() + interface() + enhanced(1, b"good") + tail)
    assert [packet.data for packet in found] == [b"good"]
    assert what in error


def test_interfaces_are_bounded() -> None:
    with pytest.raises(WireError, match="interface 4096"):
        list(read([section() + interface() * 5_000]))


def test_a_simple_packet_without_interface_is_refused() -> None:
    with pytest.raises(WireError, match="not described"):
        list(read([section() + block(3, bytes(8))]))


# --- both -------------------------------------------------------------------------------------------------------

SOUND = [
    written([Packet(1, b"abc", 3), Packet(2, b"", 0)]),
    section(">") + interface(">", options=option(9, b"\x06", ">")) + enhanced(9, b"abcde", ">") + enhanced(8, b"", ">"),
]


@pytest.mark.parametrize("data", SOUND)
def test_a_capture_cut_anywhere_gives_the_whole_packets_before_the_cut(data: bytes) -> None:
    whole = list(read([data]))
    for end in range(len(data)):
        found, _ = until_damage(data[:end])
        assert found == whole[: len(found)]


@pytest.mark.parametrize("data", SOUND)
@given(places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_is_packets_or_a_wire_error(data: bytes, places: list[tuple[int, int]]) -> None:
    damaged = bytearray(data)
    for place, value in places:
        damaged[place % len(damaged)] = value
    with contextlib.suppress(WireError):
        for packet in read([bytes(damaged)]):
            assert len(packet.data) <= pcap.RECORD_LIMIT


@pytest.mark.parametrize("bomb", [
    pcap.file_header() + struct.pack("<IIII", 0, 0, pcap.RECORD_LIMIT, 1),
    section() + struct.pack("<II", 5, 0xFFFFFFFC),
    section() + interface() + struct.pack("<IIIIIII", 6, 0xFFFFFFFC, 0, 0, 0, pcap.RECORD_LIMIT, 1),
])  # fmt: skip
def test_a_declared_length_is_not_allocated(bomb: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(WireError, match="truncated"):
        list(read([bomb]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_a_long_block_that_is_skipped_is_not_kept() -> None:
    size = 64 << 20
    pieces = [section() + struct.pack("<II", 5, size + 12), *[bytes(1 << 20)] * 64, struct.pack("<I", size + 12)]
    tracemalloc.start()
    assert list(read(pieces)) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
