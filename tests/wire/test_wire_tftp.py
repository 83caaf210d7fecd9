from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire.reader import WireError
from bootwire.wire.tftp import (
    Ack,
    Data,
    Error,
    Message,
    OptionAck,
    ReadRequest,
    WriteRequest,
    emit,
    find,
    number,
    parse,
)

text = st.binary(max_size=40).map(lambda b: b.replace(b"\0", b"."))
options = st.lists(st.tuples(text.map(bytes.lower), text), max_size=5).map(tuple)
u16 = st.integers(0, 0xFFFF)
messages = st.one_of(
    st.builds(ReadRequest, text, text.map(bytes.lower), options),
    st.builds(WriteRequest, text, text.map(bytes.lower), options),
    st.builds(Data, u16, st.binary(max_size=600)),
    st.builds(Ack, u16),
    st.builds(Error, u16, text),
    st.builds(OptionAck, options),
)


@given(messages)
def test_what_is_emitted_parses_to_the_same(message: Message):
    assert parse(emit(message)) == message


@given(messages, st.integers(0, 5000))
def test_a_flipped_bit_gives_a_value_or_a_wire_error(message: Message, bit: int):
    data = bytearray(emit(message))
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    with contextlib.suppress(WireError):
        parse(bytes(data))


@given(messages)
def test_every_prefix_gives_a_value_or_a_wire_error(message: Message):
    data = emit(message)
    for end in range(len(data)):
        with contextlib.suppress(WireError):
            parse(data[:end])


@given(st.binary(max_size=64))
def test_any_octets_give_a_value_or_a_wire_error(data: bytes):
    with contextlib.suppress(WireError):
        parse(data)


def test_a_request_as_edk2_sends_it():
    data = b"\0\1boot/snponly.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0"
    assert parse(data) == ReadRequest(
        b"boot/snponly.efi", b"octet", ((b"tsize", b"0"), (b"blksize", b"1468"), (b"windowsize", b"4"))
    )


def test_mode_and_option_names_are_lower_cased_but_names_and_values_are_not():
    assert parse(b"\0\1A\0OcTeT\0BLKSIZE\0X1\0") == ReadRequest(b"A", b"octet", ((b"blksize", b"X1"),))


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\1", b"\0\1name", b"\0\1name\0octet", b"\0\3\0", b"\0\4\1", b"\0\5"])
def test_a_cut_message_is_refused(data: bytes):
    with pytest.raises(WireError):
        parse(data)


@pytest.mark.parametrize("opcode", [0, 7, 255, 256, 0xFFFF])
def test_an_unknown_opcode_is_refused(opcode: int):
    with pytest.raises(WireError, match="unknown opcode"):
        parse(opcode.to_bytes(2, "big") + b"rest")


def test_a_cut_option_is_dropped_and_the_ones_before_it_count():
    assert parse(b"\0\1a\0octet\0blksize\x00512\0tsize\0") == ReadRequest(b"a", b"octet", ((b"blksize", b"512"),))


def test_octets_after_an_ack_are_dropped():
    assert parse(b"\0\4\0\x07padding") == Ack(7)


def test_an_error_text_without_its_nul_is_taken():
    assert parse(b"\0\5\0\x08no") == Error(8, b"no")


def test_names_are_not_decoded():
    assert parse(b"\0\1\xff\xfe/../\x01\0octet\0") == ReadRequest(b"\xff\xfe/../\x01", b"octet")


@pytest.mark.parametrize(
    "value",
    [b"", b"-1", b"+512", b" 512", b"512 ", b"1_024", "١٠٢٤".encode(), b"0x10", b"5.0", b"12345678901", b"1" * 5000],
)
def test_what_is_no_plain_number_is_none(value: bytes):
    assert number(value) is None


@pytest.mark.parametrize(("value", "meant"), [(b"0", 0), (b"0512", 512), (b"9999999999", 9_999_999_999)])
def test_digits_are_a_number(value: bytes, meant: int):
    assert number(value) == meant


def test_of_a_repeated_option_the_first_counts():
    assert find(((b"a", b"1"), (b"b", b"2"), (b"a", b"3")), b"a") == b"1"


def test_an_option_that_is_not_there_is_none():
    assert find(((b"a", b"1"),), b"c") is None
