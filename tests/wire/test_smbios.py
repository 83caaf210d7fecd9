"""SMBIOS structures: fixed part, strings, and the few fields that are not what they seem."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire.reader import WireError
from bootwire.wire.smbios import MEMORY_DEVICE, SYSTEM, Structure, memory_octets, parse, uuid


def test_strings_are_counted_from_one_and_padding_is_not_part_of_them():
    one = parse(bytes((1, 6, 0, 1, 2, 9)) + b"Maker\0Model 7   \0\0")
    assert (one.type, one.strings) == (SYSTEM, (b"Maker", b"Model 7   "))
    assert (one.string(4), one.string(5), one.string(40)) == (b"Model 7", b"", b"")


def test_a_string_that_was_cut_is_left_out():
    assert parse(bytes((1, 4, 0, 1)) + b"Maker\0Mod").strings == (b"Maker",)


@pytest.mark.parametrize("octets", [b"", b"\1\4\0", b"\1\3\0\0", b"\1\xff\0\0"])
def test_a_structure_that_is_cut_is_refused(octets: bytes):
    with pytest.raises(WireError, match="truncated SMBIOS"):
        parse(octets)


@given(st.binary(max_size=600))
def test_any_octets_are_read_or_refused(octets: bytes):
    with contextlib.suppress(WireError):
        one = parse(octets)
        memory_octets(one)
        uuid(one)
        one.string(4)


def test_the_first_fields_of_a_uuid_are_little_endian():
    raw = bytes.fromhex("33221100554477668899aabbccddeeff")
    assert uuid(Structure(SYSTEM, bytes(8) + raw)) == "00112233-4455-6677-8899-aabbccddeeff"


@pytest.mark.parametrize("raw", [bytes(16), b"\xff" * 16, bytes(3)])
def test_a_uuid_that_is_none_is_not_told(raw: bytes):
    assert uuid(Structure(SYSTEM, bytes(8) + raw)) == ""


@pytest.mark.parametrize(
    ("size", "extended", "octets"),
    [
        (0, 0, 0),  # an empty socket
        (0xFFFF, 0, 0),  # nobody knows
        (16384, 0, 16 << 30),  # MiB
        (0x8000 | 512, 0, 512 << 10),  # bit 15: KiB
        (0x7FFF, 65536, 64 << 30),  # 32 GiB and more stand in the extended size
    ],
)
def test_what_is_in_a_memory_socket(size: int, extended: int, octets: int):
    body = bytes(12) + struct.pack("<H", size) + bytes(14) + struct.pack("<I", extended)
    assert memory_octets(Structure(MEMORY_DEVICE, body)) == octets
