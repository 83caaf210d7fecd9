"""The block that a boot program's server fills in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.programs.parameters import AT, FALLBACKS, MAGIC, Parameters, fill, has_parameters, read

PROGRAM = b"\xe9\xbd\x00\x90" + MAGIC.ljust(188, b"\0") + b"code behind it"
texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=39)
u16 = st.integers(0, 2**16 - 1)


@given(
    st.builds(
        Parameters, texts, st.sampled_from(FALLBACKS), st.integers(1, 16), st.integers(0, 3600),
        st.binary(min_size=4, max_size=4), u16, u16, texts,
    )
)  # fmt: skip
def test_what_is_filled_in_can_be_read_and_the_code_stays(told: Parameters):
    filled = fill(PROGRAM, told)
    assert read(filled) == told
    assert len(filled) == len(PROGRAM)
    assert (filled[:AT], filled[192:]) == (PROGRAM[:AT], b"code behind it")


@given(st.binary(max_size=300))
def test_a_file_without_a_block_is_left_as_it_is(octets: bytes):
    assert not has_parameters(octets)
    assert fill(octets, Parameters()) == octets
    assert read(octets) is None


def test_a_block_octet_by_octet():
    filled = fill(PROGRAM, Parameters("next.0", "reboot", 3, 7, bytes((10, 0, 0, 1)), 6971, 6969, "hi"))
    head = MAGIC + bytes((10, 0, 0, 1)) + b"\x3b\x1b\x39\x1b\x03\x03\x07\x00"
    assert filled[4:192] == head + b"next.0".ljust(128, b"\0") + b"hi".ljust(40, b"\0")


@pytest.mark.parametrize(
    "wrong",
    [
        Parameters("x" * 128),
        Parameters("a\0b"),
        Parameters(message="x" * 40),
        Parameters(tries=0),
        Parameters(tries=17),
        Parameters(pause=3601),
        Parameters(server=b"abc"),
        Parameters(report_port=65536),
    ],
)
def test_what_has_no_room_is_refused(wrong: Parameters):
    with pytest.raises(ValueError, match=r"fit|are 1 to 16|out of range"):
        fill(PROGRAM, wrong)


def test_a_block_that_says_nonsense_is_none():
    filled = bytearray(fill(PROGRAM, Parameters()))
    filled[20] = 9
    assert read(bytes(filled)) is None
