"""Facts in the systemd journal: the native protocol, read as journald reads it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boot_stories import booted, hostile, mac, records
from bootwire import facts
from bootwire.facts import Record
from bootwire.serve.systemd import SystemdJournal, entry, is_output, priority


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "socket"))
        made.settimeout(5)
        yield made


def read(data: bytes) -> dict[str, str]:
    """As journald does (src/journal/journald-native.c)."""
    found = {}
    while data:
        line, _, rest = data.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
            data = rest
        else:
            (size,) = struct.unpack_from("<Q", rest)
            name, value, data = line, rest[8 : 8 + size], rest[8 + size + 1 :]
        assert name.isascii()
        assert name.isupper() or b"_" in name
        found[name.decode()] = value.decode()
    return found


def test_a_verdict_arrives_with_its_fields(tmp_path: Path, journald: socket.socket) -> None:
    written = SystemdJournal(str(tmp_path / "socket"))
    verdict = facts.Verdict(mac(1), 7, "stuck", "loader", "loader-refused", "it hangs", "try it", "", 1.5, 9)
    written.take(Record(0, 0, verdict))
    found = read(journald.recv(65_536))
    assert found["MESSAGE"] == f"{mac(1)}  verdict  stuck after loader: it hangs; to fix: try it"
    assert (found["PRIORITY"], found["SYSLOG_IDENTIFIER"]) == ("4", "bootwire")
    assert (found["BOOTWIRE_MACHINE"], found["BOOTWIRE_STATE"], found["BOOTWIRE_BOOT"]) == (mac(1), "stuck", "7")
    assert "BOOTWIRE_SCREEN" not in found
    written.close()


def test_only_milestones_unless_all_is_asked_for(tmp_path: Path, journald: socket.socket) -> None:
    for verbose, expected in ((False, "offer"), (True, "pxe-request")):
        written = SystemdJournal(str(tmp_path / "socket"), verbose=verbose)
        for record in records(booted()[3:4] + booted()[1:2]):
            written.take(record)
        assert read(journald.recv(65_536))["BOOTWIRE_KIND"] == expected
        written.close()


def test_a_full_socket_never_holds_us_up(tmp_path: Path, journald: socket.socket) -> None:
    written = SystemdJournal(str(tmp_path / "socket"))
    for _ in range(2_000):
        written.take(Record(0, 0, facts.Warned("", "x" * 200)))
    assert written.lost > 0
    written.close()


def test_without_the_socket_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        SystemdJournal(str(tmp_path / "nothing"))


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_text_makes_a_field_of_its_own(what: str, fix: str) -> None:
    found = read(entry(facts.Warned(mac(1), what, fix)))
    assert set(found) <= {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "BOOTWIRE_KIND", "BOOTWIRE_MACHINE",
                          "BOOTWIRE_WHAT", "BOOTWIRE_FIX"}  # fmt: skip
    assert found.get("BOOTWIRE_WHAT", "") == what.encode("utf-8", "backslashreplace").decode()


def test_every_fact_of_a_boot_is_an_entry() -> None:
    for record in records(booted()) + records(hostile()):
        found = read(entry(record.fact))
        assert found["BOOTWIRE_KIND"] == record.fact.kind
        assert 3 < priority(record.fact) < 8


def test_output_to_the_journal_is_known_by_what_systemd_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        found = os.fstat(out.fileno())
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        assert not is_output(out.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert is_output(out.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
        assert not is_output(out.fileno())
