"""PXELINUX configurations: what they say, and that no text in them becomes a directive of its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootwire.assets.pxelinux import MAX_LINE, Entry, config, go_on

URL = "http://192.0.2.1/pxelinux/52-54-00-12-34-56"


def test_it_is_this_text() -> None:
    entry = Entry(f"{URL}/kernel", (f"{URL}/initrd/0", f"{URL}/initrd/1"), "console=ttyS0  quiet", "Hello\nWorld")
    assert config(entry).decode() == (
        "DEFAULT bootwire\nPROMPT 0\nNOESCAPE 1\nSAY Hello\nSAY World\nLABEL bootwire\n"
        f"  LINUX {URL}/kernel\n  INITRD {URL}/initrd/0,{URL}/initrd/1\n  APPEND console=ttyS0 quiet\n"
    )


DIRECTIVES = ("DEFAULT", "PROMPT", "NOESCAPE", "SAY", "LABEL", "LINUX", "INITRD", "APPEND", "LOCALBOOT")


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_text_becomes_a_directive(cmdline: str, message: str) -> None:
    lines = config(Entry(f"{URL}/kernel", (), cmdline, message)).decode().split("\n")
    words = [line.split()[0] for line in lines if line.strip()]
    assert all(word in DIRECTIVES for word in words)
    assert words.count("LINUX") == 1
    assert words.count("APPEND") == bool(cmdline.strip()) or not cmdline.isprintable()
    assert "\r" not in "".join(lines)


@given(st.text(max_size=300))
def test_a_reason_is_one_line(because: str) -> None:
    lines = go_on(because).decode().splitlines()
    assert [line.split()[0] for line in lines] == ["DEFAULT", "PROMPT", "SAY", "LABEL", "LOCALBOOT"]


@pytest.mark.parametrize("url", ["", "http://x/" + "y" * 250, "http://x/a b", "http://x/a,b"])
def test_names_that_pxelinux_cannot_take_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="names of 255 octets"):
        config(Entry(url))


def test_a_line_that_pxelinux_would_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="lines of 2047 octets"):
        config(Entry(f"{URL}/kernel", (), "x" * MAX_LINE))
