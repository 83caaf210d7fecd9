"""Every fact has one readable, stable line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootwire import facts
from bootwire.facts import KINDS, Fact, Record
from bootwire.observe import prose

MAC = "52:54:00:12:34:56"
NOON = 1_700_049_731.5  # 2023-11-15 12:02:11 UTC
DOCS = Path(__file__).parents[2] / "docs/reference/facts.md"

UNTOLD: dict[type[Fact], set[str]] = {  # in the JSON lines alone
    facts.Discovered: {"uuid", "xid", "vendor_class", "user_class", "retry"},
    facts.Offered: {"interface"},
    facts.AddressSeen: {"proxied"},  # told where there is none
    facts.TransferDone: {"confirmed"},  # told where it is not
    facts.BootinfoAsked: {"again"},  # these three in words
    facts.BootinfoAnswered: {"again"},
    facts.OrderEnded: {"taken"},
    facts.ReportReceived: {"record"},
    facts.Verdict: {"boot", "stage", "cause", "screen", "seconds", "octets"},
}


def line(fact: Fact, utc_offset: int = 0) -> str:
    return prose.line(Record(NOON, 0, fact), utc_offset)


def hostile(kind: type[Fact]) -> st.SearchStrategy[Fact]:
    texts = st.text(max_size=300) | st.sampled_from(["\x1b[2J\n\r", "\u202e\u2028", "x" * 5000, "\ud800", "%s{0}"])
    numbers = {"int": st.integers(-(2**63), 2**64), "float": st.floats(0, 1e18, allow_nan=False)}
    return st.builds(kind, **{f.name: numbers.get(str(f.type), texts) for f in dataclasses.fields(kind)})


@given(st.sampled_from(KINDS).flatmap(hostile), st.booleans())
def test_a_hostile_fact_is_one_printable_bounded_line(fact: Fact, colour: bool) -> None:
    text = prose.line(Record(NOON, 0, fact), 3600, colour=colour)
    for sgr in ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[2m", "\x1b[0m"):
        text = text.replace(sgr, "", 1)
    assert text.isprintable()
    assert len(text) < 2000


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_sentence_with_the_machine_on_it(kind: type[Fact]) -> None:
    samples = {"int": 7, "float": 1.5}
    values = {f.name: samples.get(str(f.type), f"<{f.name}>") for f in dataclasses.fields(kind)}
    text = line(kind(**values | {"machine": MAC}))  # type: ignore[arg-type]
    assert text.startswith(f"12:02:11  {MAC}  ")
    for name in {f.name for f in dataclasses.fields(kind)} - UNTOLD.get(kind, set()) - {"machine"}:
        assert str(values[name]) in text, f"{kind.__name__} does not tell its {name}"


def test_columns_line_up_under_the_header() -> None:
    text = line(facts.TransferDone(MAC, "tftp", "snponly.efi", "192.168.1.57", 289_000, 0.2))
    assert text == "12:02:11  52:54:00:12:34:56  192.168.1.57     tftp       snponly.efi  289 KB in 0.20s, 1.4 MB/s"
    assert prose.HEADER.index("MACHINE") == text.index(MAC)
    assert prose.HEADER.index("STEP") == text.index("tftp")
    assert prose.HEADER.index("DETAIL") == text.index("snponly")


def test_a_fact_about_the_server_has_a_dash_for_the_machine() -> None:
    text = line(facts.Warned("", "UDP port 514 is taken", "sudo systemctl stop rsyslog"))
    assert text.split("  ")[1] == "-"
    assert text.endswith("warning    UDP port 514 is taken; to fix: sudo systemctl stop rsyslog")


def test_the_clock_is_local() -> None:
    assert line(facts.Stopped("", "Ctrl-C"), 13 * 3600).startswith("01:02:11")
    assert line(facts.Stopped("", "Ctrl-C"), -12 * 3600 - 180).startswith("23:59:11")


def test_a_transfer_that_took_no_time_has_no_speed() -> None:
    assert line(facts.TransferDone(MAC, "http", "kernel", "", 0, 0.0)).endswith("kernel  0 B in 0.00s")


def test_a_transfer_without_its_last_ack_says_so() -> None:
    fact = facts.TransferDone(MAC, "tftp", "kernel", "", 7, 0.0, 0, confirmed=False)
    assert line(fact).endswith("kernel  7 B in 0.00s, the last ACK never came")


def test_colour_marks_the_step_alone() -> None:
    text = prose.line(Record(NOON, 0, facts.HandedOver(MAC, "10.0.0.9", 52_800_000, 4.1)), colour=True)
    assert "\x1b[32mhand-over\x1b[0m  the kernel starts" in text
    assert "\x1b" not in text.replace("\x1b[32mhand-over\x1b[0m", "")


def test_by_default_the_terminal_shows_what_moves_a_boot_on_or_stops_it() -> None:
    shown = {kind for kind in KINDS if prose.is_milestone(_plain(kind))}
    assert set(KINDS) - shown == {
        facts.TransferStarted,
        facts.SizeProbed,
        facts.ConsoleSaid,
        facts.PxeRequested,
        facts.Silent,
        facts.BootinfoAsked,
    }
    assert prose.is_milestone(facts.Silent(MAC, "dhcp", "not in the list", "UEFI x64"))
    for nobody in ("", "ordinary host", "ordinary host (udhcp 1.36)", "BOOTP client"):
        assert not prose.is_milestone(facts.Silent(MAC, "dhcp", "it does not ask for a network boot", nobody))


@pytest.mark.parametrize(("octets", "text"), [
    (0, "0 B"), (999, "999 B"), (1_000, "1 KB"), (999_999, "999 KB"), (12_140_000, "12.1 MB"), (10**9, "1.0 GB")]
)  # fmt: skip
def test_octets_are_told_in_decimal_units(octets: int, text: str) -> None:
    assert prose.octets_text(octets) == text


def test_ten_thousand_hostile_facts_are_ten_thousand_lines() -> None:
    nasty = "\n\r\x0b\x0c\x1c\x85\u2028\u2029\x1b[1A\x1b]0;x\x07\x00\u202e"
    fact = facts.Refused("", "tftp", nasty, nasty, nasty * 20)
    text = "\n".join(line(fact) for _ in range(10_000))
    assert len(text.splitlines()) == 10_000
    assert text.count("\n") == 9_999


def test_the_reference_table_says_what_facts_say() -> None:
    rows = [row for row in DOCS.read_text("utf-8").splitlines() if row.startswith("| `")]
    told = {cells[1].strip().strip("`"): (cells[2].strip().strip("`"), cells[4].strip()) for cells in map(_cells, rows)}
    for kind in KINDS:
        fields = ", ".join(f"`{f.name}`" for f in dataclasses.fields(kind) if f.name != "machine")
        assert told.pop(kind.kind) == (line(_plain(kind)).split()[2], fields)
    assert not told


@settings(max_examples=20)
@given(st.sampled_from(KINDS))
def test_every_kind_has_a_name_of_its_own(kind: type[Fact]) -> None:
    assert [k.kind for k in KINDS].count(kind.kind) == 1


def _cells(row: str) -> list[str]:
    return row.split("|")


def _plain(kind: type[Fact]) -> Fact:
    """A fact with nothing to tell: protocols are "tftp", other texts empty, numbers 0."""
    numbers = {"int": 0, "float": 0.0}
    values = {
        f.name: "tftp" if f.name == "protocol" else numbers.get(str(f.type), "") for f in dataclasses.fields(kind)
    }
    return kind(**values)  # type: ignore[arg-type]
