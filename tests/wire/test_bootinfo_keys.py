"""The file of keys, as people write and break it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire.bootinfo_keys import LARGEST, parse

KEY = "00112233445566778899aabbccddeeff"


def test_a_file_gives_its_keys_in_order():
    data = f"# rack 7\n\n52:54:00:12:34:56  {KEY}\n*\t{KEY.upper()}00\n".encode()
    assert parse(data, "keys") == {"52:54:00:12:34:56": bytes.fromhex(KEY), "*": bytes.fromhex(KEY + "00")}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no keys in it"),
        ("# only words\n", "no keys in it"),
        (f"\nm {KEY} more\n", "keys, line 2: not an identity and a key"),
        ("m\n", "keys, line 1: not an identity and a key"),
        ("m xyz\n", "the key of m is not hexadecimal"),
        (f"m {KEY}0\n", "the key of m is not hexadecimal"),
        (f"m {KEY[2:]}\n", "the key of m has 15 octets, at least 16 are needed"),
        (f"m {KEY}\nm {KEY}\n", "keys, line 2: a second key for m"),
        (f"{'m' * 129} {KEY}\n", "an identity is 1 to 128 printable ASCII characters"),
        (f"é {KEY}\n", "an identity is 1 to 128 printable ASCII characters"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(text: str, says: str):
    with pytest.raises(ValueError, match=says):
        parse(text.encode(), "keys")


def test_a_huge_file_is_refused():
    with pytest.raises(ValueError, match="more than 4 MiB"):
        parse(b"#" * (LARGEST + 1), "keys")


@given(st.binary(max_size=200))
def test_any_octets_give_keys_or_a_value_error(data: bytes):
    try:
        keys = parse(data, "keys")
    except ValueError:
        return
    assert all(len(key) >= 16 for key in keys.values())
