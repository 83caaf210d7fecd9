"""Peers' text made safe for one line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bootwire.wire.text import LIMIT, printable


@given(st.one_of(st.binary(max_size=2000), st.text(max_size=2000)), st.integers(1, 300))
def test_any_text_becomes_one_bounded_printable_line(raw: bytes | str, limit: int) -> None:
    line = printable(raw, limit)
    assert line.isprintable()
    assert len(line) <= limit


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_a_second_call_changes_nothing(raw: bytes | str) -> None:
    once = printable(raw)
    assert printable(once) == once


def test_terminal_escapes_line_ends_and_direction_marks_are_spelled_out() -> None:
    assert printable(b"a\x1b[2Jb\r\nc") == r"a\x1b[2Jb\x0d\x0ac"
    assert printable("a\u202eb\u2028c\x85d\ud800") == r"a\u202eb\u2028c\x85d\ud800"
    assert printable(b"\xff\xfeok") == r"\xff\xfeok"


def test_readable_text_of_any_language_is_left_alone() -> None:
    assert printable("größe/内核") == "größe/内核"
    assert printable("größe".encode()) == "größe"


def test_a_long_text_is_cut_and_says_so() -> None:
    assert printable("x" * LIMIT) == "x" * LIMIT
    assert printable("x" * 10_000) == "x" * (LIMIT - 1) + "…"
    assert printable(b"x" * 10_000) == "x" * (LIMIT - 1) + "…"
