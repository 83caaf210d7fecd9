from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire import checksum


def slowly(data: bytes) -> int:
    """RFC 1071 section 4.1, word by word."""
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def test_the_example_of_rfc_1071():
    assert checksum.compute(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


@given(st.binary(min_size=1, max_size=300).filter(any))
def test_agrees_with_word_by_word_addition(data):
    # 0 and 65535 are the same number in ones' complement; of octets that are not all zero we always choose 0
    assert checksum.compute(data) == slowly(data) % 0xFFFF


@given(st.binary(min_size=4, max_size=100).filter(lambda d: len(d) % 2 == 0), st.integers(0, 31))
def test_a_filled_in_message_holds_until_one_bit_flips(data, bit):
    whole = bytearray(checksum.compute(b"\0\0" + data[2:]).to_bytes(2, "big") + data[2:])
    assert checksum.holds(bytes(whole))
    whole[bit // 8] ^= 1 << bit % 8
    assert not checksum.holds(bytes(whole))
